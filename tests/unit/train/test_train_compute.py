"""Options of the step: each gives the run without it, up to rounding where it says so, and leaves checkpoints alike."""

from __future__ import annotations

import json

import pytest
import torch

from lmbatch.checkpoint.state import TrainingState, load_training_state, write_state
from lmbatch.config import ModelConfig
from lmbatch.errors import ConfigError
from lmbatch.model import LossHead, build_model
from lmbatch.train import train
from lmbatch.train.compute import prepare_model
from lmbatch.train.metrics import evaluation_rows, read_metrics, training_rows
from support.masked_corpus import masked_config, write_corpus
from support.tiny_run import assert_equal_runs, newest_payload, tiny_config

CALM = {"config": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}}
APART = {"document_attention": True}
# Option and the most by which a loss may differ: 0 is bit for bit.
OPTIONS = {
    "eager": ({"attention": "eager"}, 2e-5),
    "fused": ({"fused_optimizer": True}, 2e-5),
    "chunked": ({"loss_chunk_tokens": 50}, 2e-5),
    "checkpointing": ({"activation_checkpointing": True}, 0.0),
}


def assert_same_run(found, expected, tolerance):
    rows, theirs = read_metrics(found), read_metrics(expected)
    for key in ("step", "samples", "data", "lr", "tokens"):
        assert [row[key] for row in training_rows(rows)] == [row[key] for row in training_rows(theirs)]
    for kind in (training_rows, evaluation_rows):
        losses = [row["loss"] for row in kind(theirs)]
        assert [row["loss"] for row in kind(rows)] == pytest.approx(losses, rel=0, abs=tolerance)


@pytest.fixture(scope="module")
def calm(store, tmp_path_factory):
    """A run without dropout, with which attention takes the same way everywhere."""
    return train(tiny_config(store, tmp_path_factory.mktemp("calm"), model=CALM))


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_gives_the_same_run(store, calm, tmp_path, option):
    compute, tolerance = OPTIONS[option]
    found = train(tiny_config(store, tmp_path, model=CALM, compute=compute))
    if tolerance == 0.0:
        assert_equal_runs(found.run_dir, calm.run_dir)
    else:
        assert_same_run(found.run_dir, calm.run_dir, tolerance)
        assert newest_payload(found.run_dir) != newest_payload(calm.run_dir)  # the option did something


def test_activation_checkpointing_draws_the_same_dropout(store, straight, tmp_path):
    found = train(tiny_config(store, tmp_path, compute={"activation_checkpointing": True}))
    assert_equal_runs(found.run_dir, straight.run_dir)


@pytest.mark.parametrize("option", ["eager", "chunked"])
def test_an_option_with_documents_kept_apart(store, tmp_path, option):
    compute, tolerance = OPTIONS[option]
    usual = train(tiny_config(store, tmp_path / "usual", data=APART, model=CALM, steps=8))
    found = train(tiny_config(store, tmp_path / "found", data=APART, model=CALM, steps=8, compute=compute))
    assert_same_run(found.run_dir, usual.run_dir, tolerance)


@pytest.mark.parametrize(("first", "then"), [(True, False), (False, True)], ids=["fused first", "fused then"])
def test_the_optimizers_state_goes_from_one_kernel_to_the_other(store, straight, tmp_path, first, then):
    config = tiny_config(store, tmp_path, compute={"fused_optimizer": first}, steps=20)
    train(config.model_copy(update={"steps": 10, "run": config.run.model_copy(update={"accept_changes": True})}))
    again = tiny_config(store, tmp_path, compute={"fused_optimizer": then}, run={"accept_changes": True})
    found = train(again)
    assert found.resumed_from == 10
    groups = json.loads(newest_payload(found.run_dir)["optimizer.json"])["state"]["param_groups"]
    assert [group["fused"] for group in groups] == [then or None] * len(groups)


def model_of(kind, **settings):
    config = ModelConfig(type=kind, config=settings)
    return build_model(config, vocab_size=48, sequence_length=32, eod_id=0, seed=1)


TINY = {"n_layer": 1, "n_embd": 16, "n_head": 2}


@pytest.mark.parametrize(
    ("kind", "settings", "compute", "why"),
    [
        ("bloom", {"n_layer": 1, "hidden_size": 16, "n_head": 2}, {"attention": "sdpa"}, "`bloom` has no sdpa"),
        ("gpt2", TINY, {"attention": "flash_attention_2"}, "needs a GPU and the package flash-attn"),
    ],
)
def test_what_cannot_be_is_said(store, tmp_path, kind, settings, compute, why):
    config = tiny_config(store, tmp_path, compute=compute)
    with pytest.raises(ConfigError, match=why) as caught:
        prepare_model(model_of(kind, **settings), config, on_gpu=False, precision="fp32")
    assert "compute.attention" in str(caught.value)


@pytest.mark.parametrize(
    ("precision", "data", "why"), [("fp32", {}, "does not compute in fp32"), ("bf16", APART, "keep documents apart")]
)
def test_flash_attention_where_it_is_installed(store, tmp_path, monkeypatch, precision, data, why):
    monkeypatch.setattr("lmbatch.model.attention.is_flash_attn_2_available", lambda: True)
    config = tiny_config(store, tmp_path, compute={"attention": "flash_attention_2"}, data=data)
    with pytest.raises(ConfigError, match=why):
        prepare_model(model_of("gpt2", **TINY), config, on_gpu=True, precision=precision)


def test_activation_checkpointing_keeps_less_for_the_backward_pass(store, tmp_path):
    saved = {}
    for on in (False, True):
        model = model_of("gpt2", n_layer=4, n_embd=16, n_head=2).train()
        config = tiny_config(store, tmp_path, compute={"activation_checkpointing": on})
        prepare_model(model, config, on_gpu=False, precision="fp32")
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            model(input_ids=torch.arange(32)[None], use_cache=False)
        saved[on] = sum(kept)
    assert saved[True] < saved[False] / 2


def test_a_masked_run(tmp_path):
    """With and without chunks; either way the head is given the hidden tokens and no others."""
    masked_store, given = write_corpus(tmp_path), []
    forward = LossHead._loss

    def watched(self, hidden, targets):
        given.append((hidden.shape[0] * hidden.shape[1], len(targets.labels)))
        return forward(self, hidden, targets)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LossHead, "_loss", watched)
        usual = train(masked_config(masked_store, tmp_path / "usual", steps=6))
        chunked = train(masked_config(masked_store, tmp_path / "chunked", steps=6, compute={"loss_chunk_tokens": 5}))
    assert_same_run(chunked.run_dir, usual.run_dir, 2e-5)
    assert given
    assert sum(chosen for _, chosen in given) < 0.3 * sum(read for read, _ in given)


@pytest.mark.parametrize("fused", [False, True])
def test_a_loaded_optimizer_keeps_its_own_kernel(tmp_path, fused):
    models = [torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)]
    one, other = (torch.optim.AdamW(model.parameters(), fused=on or None)
                  for model, on in zip(models, (not fused, fused), strict=True))  # fmt: skip
    models[0](torch.ones(3)).sum().backward()
    one.step()
    write_state(tmp_path, TrainingState.of(models[0], one, scaler=None, extra={}))
    load_training_state(tmp_path, model=models[1], optimizer=other)
    assert other.param_groups[0]["fused"] == (fused or None)
    assert torch.equal(other.state[models[1].weight]["exp_avg"], one.state[models[0].weight]["exp_avg"])
