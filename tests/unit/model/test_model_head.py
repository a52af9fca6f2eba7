"""The loss computed in the output projection: the same numbers, and no logits of a whole batch."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, Gemma2Config

from lmbatch.config import ModelConfig
from lmbatch.errors import ConfigError
from lmbatch.model import (
    MaskedIds,
    Targets,
    build_model,
    causal_loss,
    fit_loss_head,
    loss_head,
    masked_loss,
    require_loss_head,
)

VOCABULARY, LENGTH, ROWS = 509, 24, 3  # a size that nothing else in these models has
LLAMA = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1}  # fmt: skip
CAUSAL = {
    "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 2},
    "llama": LLAMA,
    "llama tied": LLAMA | {"tie_word_embeddings": True},
    "qwen2": LLAMA | {"tie_word_embeddings": False},
    "bloom": {"n_layer": 2, "hidden_size": 32, "n_head": 2},
}
ROBERTA = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def built(kind: str, *, masked: bool = False, padded: int | None = None):
    settings = ROBERTA if masked else CAUSAL[kind]
    config = ModelConfig(type=kind.split()[0], config=settings, pad_vocab_to_multiple=padded)
    ids = MaskedIds(0, 1) if masked else None
    model = build_model(config, vocab_size=VOCABULARY, sequence_length=LENGTH, eod_id=0, seed=5, masked=ids)
    return model.eval()  # without dropout


def a_batch(ignored: float = 0.0):
    """Token ids and shifted labels, a share of which is to be left out."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(2, VOCABULARY, (ROWS, LENGTH), generator=generator)
    labels = torch.randint(2, VOCABULARY, (ROWS, LENGTH), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < ignored] = -100
    return ids, labels


def targets_of(labels: torch.Tensor) -> Targets:
    rows = (labels.flatten() != -100).nonzero().flatten()
    return Targets(labels.flatten()[rows], None if len(rows) == labels.numel() else rows)


def in_head(model, ids, labels) -> torch.Tensor:
    head = loss_head(model)
    assert head is not None
    with head.asked_for(targets_of(labels)):
        return model(input_ids=ids).logits


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(model, whole_loss, *, ids, labels, chunk, rtol, atol):
    """Loss and every gradient of the head's way against those of whole logits."""
    other = copy.deepcopy(model)
    require_loss_head(other, chunk=chunk)
    expected = whole_loss(model(input_ids=ids).logits, labels)
    (expected * 0.37).backward()
    found = in_head(other, ids, labels)
    (found * 0.37).backward()
    torch.testing.assert_close(found, expected, rtol=rtol, atol=0)
    ours, theirs = gradients(other), gradients(model)
    assert ours.keys() == theirs.keys()
    scale = max(float(gradient.abs().max()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=rtol, atol=atol * scale)


@pytest.mark.parametrize("chunk", [1, 7, 24, 1000])
@pytest.mark.parametrize("kind", CAUSAL)
def test_loss_and_gradients_are_those_of_whole_logits(kind, chunk):
    ids, labels = a_batch()
    assert_same(built(kind), causal_loss, ids=ids, labels=labels, chunk=chunk, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_tokens_without_a_label_take_no_part(kind):
    ids, labels = a_batch(0.4)
    assert_same(built(kind), causal_loss, ids=ids, labels=labels, chunk=7, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk", [0, 7])
def test_a_masked_model(chunk):
    ids, labels = a_batch(0.85)
    assert_same(built("roberta", masked=True), masked_loss, ids=ids, labels=labels, chunk=chunk, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "masked"), [("gpt2", False), ("llama", False), ("roberta", True)])
@pytest.mark.parametrize("chunk", [0, 7])
def test_rows_that_pad_the_vocabulary_stay_out_of_it(kind, masked, chunk):
    ids, labels = a_batch(0.5)
    model = built(kind, masked=masked, padded=64)
    loss = masked_loss if masked else causal_loss
    assert_same(model, loss, ids=ids, labels=labels, chunk=chunk, rtol=1e-5, atol=1e-6)
    require_loss_head(model, chunk=chunk)
    model.zero_grad()
    in_head(model, ids, labels).backward()
    table = loss_head(model).weight.grad
    assert len(table) == 512
    assert not table[VOCABULARY:].any()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_under_bf16_autocast(kind):
    ids, labels = a_batch()
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(built(kind), causal_loss, ids=ids, labels=labels, chunk=7, rtol=2e-2, atol=2e-2)


def test_gradients_of_bf16_are_added_up_in_fp32():
    """Many chunks add to one row of the weight; in bf16 the sum would stand still after a few hundred."""
    model = built("llama")
    require_loss_head(model, chunk=1)
    hidden = torch.ones(4096, 32, requires_grad=True)
    head = loss_head(model)
    with torch.autocast("cpu", torch.bfloat16), head.asked_for(Targets(torch.full((4096,), 9), None)):
        head(hidden).backward()
    assert float(head.weight.grad[9].mean()) == pytest.approx(-4096 * (1 - 1 / VOCABULARY), rel=5e-3)


def test_a_batch_without_any_label_gives_zero():
    model = built("roberta", masked=True)
    require_loss_head(model, chunk=4)
    ids, _ = a_batch()
    loss = in_head(model, ids, torch.full_like(ids, -100))
    loss.backward()
    assert loss.item() == 0.0
    assert not any(gradient.any() for gradient in gradients(model).values())


class Largest(TorchDispatchMode):
    """The most elements that any tensor with the vocabulary as its last dimension had."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.t.default:  # the weight, looked at the other way
            return out
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor) and value.ndim and value.shape[-1] == VOCABULARY:
                self.logits = max(self.logits, value.numel() // VOCABULARY)
        return out


def rows_of_logits(model, ids, labels, loss) -> int:
    with Largest() as seen:
        loss(model, ids, labels).backward()
    return seen.logits


def test_logits_of_more_than_a_chunk_never_exist():
    ids, labels = a_batch()
    model = built("llama")
    assert rows_of_logits(model, ids, labels, lambda m, i, t: causal_loss(m(input_ids=i).logits, t)) == ROWS * LENGTH
    require_loss_head(model, chunk=7)
    assert rows_of_logits(model, ids, labels, in_head) == 7


def test_a_masked_model_projects_hidden_tokens_alone():
    ids, labels = a_batch(0.5)
    hidden = int((labels != -100).sum())
    model = built("roberta", masked=True)
    assert rows_of_logits(model, ids, labels, lambda m, i, t: masked_loss(m(input_ids=i).logits, t)) == ROWS * LENGTH
    assert fit_loss_head(model, chunk=0)
    assert rows_of_logits(model, ids, labels, in_head) == hidden


def test_without_targets_it_gives_logits_as_before():
    model, ids = built("gpt2"), a_batch()[0]
    before, names = model(input_ids=ids).logits, list(model.state_dict())
    require_loss_head(model, chunk=4)
    assert torch.equal(model(input_ids=ids).logits, before)
    assert list(model.state_dict()) == names
    assert model.generate(ids[:1, :4], max_new_tokens=2, min_new_tokens=2, do_sample=False).shape == (1, 6)


@pytest.mark.parametrize("setting", ["final_logit_softcapping", "logit_scale"])
def test_logits_that_are_worked_on_afterwards_are_refused(setting):
    kinds = {"final_logit_softcapping": Gemma2Config(vocab_size=VOCABULARY, head_dim=16, **LLAMA)}
    config = kinds.get(setting) or cohere()
    model = AutoModelForCausalLM.from_config(config).eval()
    assert not fit_loss_head(model, chunk=4)
    assert type(model.get_output_embeddings()) is torch.nn.Linear
    with pytest.raises(ConfigError, match="does more with its logits"):
        require_loss_head(model, chunk=4)


def cohere():
    from transformers import CohereConfig

    return CohereConfig(vocab_size=VOCABULARY, logit_scale=0.25, **LLAMA)
