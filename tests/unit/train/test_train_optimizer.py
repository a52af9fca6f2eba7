"""Which parameters decay."""

from __future__ import annotations

import torch

from lmbatch.config import ModelConfig, OptimizerConfig
from lmbatch.model import build_model
from lmbatch.train.optimizer import build_optimizer, decay_groups, set_lr


def tiny(kind="gpt2", **config):
    settings = {"n_layer": 1, "n_embd": 8, "n_head": 2} if kind == "gpt2" else config
    return build_model(ModelConfig(type=kind, config=settings), vocab_size=32, sequence_length=16, eod_id=0, seed=0)


def names(model, group):
    wanted = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in wanted}


def test_matrices_decay_and_biases_and_norms_do_not():
    model = tiny()
    decayed, others = decay_groups(model, 0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert names(model, decayed) == {
        "transformer.wte.weight", "transformer.wpe.weight", "transformer.h.0.attn.c_attn.weight",
        "transformer.h.0.attn.c_proj.weight", "transformer.h.0.mlp.c_fc.weight", "transformer.h.0.mlp.c_proj.weight",
    }  # fmt: skip
    assert all(name.endswith(".bias") or ".ln_" in name for name in names(model, others))


def test_every_parameter_stands_in_exactly_one_group_and_a_tied_one_once():
    model = tiny()
    listed = [id(parameter) for group in decay_groups(model, 0.1) for parameter in group["params"]]
    assert sorted(listed) == sorted({id(parameter) for parameter in model.parameters()})


def test_frozen_parameters_and_empty_groups_are_left_out():
    model = torch.nn.Linear(2, 2, bias=False)
    assert len(decay_groups(model, 0.1)) == 1
    model.weight.requires_grad_(False)
    assert decay_groups(model, 0.1) == []


def test_the_optimizer_takes_its_settings_from_the_config():
    optimizer = build_optimizer(tiny(), OptimizerConfig(lr=3e-4, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.05))
    assert {(g["lr"], g["betas"], g["eps"]) for g in optimizer.param_groups} == {(3e-4, (0.8, 0.9), 1e-6)}
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.05, 0.0]
    set_lr(optimizer, 0.5)
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.5]
