"""A padded vocabulary: the same numbers, and nothing left of it after it is cut."""

from __future__ import annotations

import pytest
import torch

from lmbatch.config import ModelConfig
from lmbatch.errors import ConfigError
from lmbatch.estimate.shape import padded_rows
from lmbatch.model import MaskedIds, build_model, causal_loss, cut_vocabulary, pad_vocabulary

SIZES = {"vocab_size": 101, "sequence_length": 32, "eod_id": 7}
TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
BLOOM = {"hidden_size": 16, "n_layer": 1, "n_head": 2}
MASKED = MaskedIds(first=1, pad=2)
MODELS = [
    ("gpt2", {"n_layer": 1, "n_embd": 16, "n_head": 2}, None),
    ("gpt2", {"n_layer": 1, "n_embd": 16, "n_head": 2, "tie_word_embeddings": False}, None),
    ("llama", TINY, None), ("qwen2", {**TINY, "num_key_value_heads": 1}, None), ("bloom", BLOOM, None),
    ("bert", TINY, MASKED), ("roberta", TINY, MASKED), ("deberta-v2", TINY, MASKED),
]  # fmt: skip


@pytest.fixture(params=MODELS, ids=lambda case: case[0])
def pair(request):
    """The same model without padding and with it."""
    name, config, masked = request.param
    settings = {"type": name, "config": config}
    return tuple(
        build_model(ModelConfig(**settings, pad_vocab_to_multiple=multiple), **SIZES, seed=3, masked=masked).eval()
        for multiple in (None, 64)
    )


def test_the_multiple_is_rounded_up_to():
    assert [padded_rows(50257, multiple) for multiple in (None, 64, 128)] == [50257, 50304, 50304]
    assert padded_rows(128, 64) == 128


def test_the_logits_are_those_without_padding_and_as_wide(pair):
    plain, padded = pair
    ids = torch.arange(32)[None]
    with torch.no_grad():
        expected, found = plain(ids).logits, padded(ids).logits
    assert found.shape == expected.shape == (1, 32, 101)
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)
    assert padded.get_input_embeddings().weight.shape[0] == padded.get_output_embeddings().weight.shape[0] == 128
    assert padded.config.vocab_size == 101


def test_additional_rows_are_zeros_that_get_no_gradient(pair):
    _, padded = pair
    ids = torch.arange(32)[None]
    causal_loss(padded(ids).logits, ids).backward()
    output = padded.get_output_embeddings()
    for parameter in (padded.get_input_embeddings().weight, output.weight, output.bias):
        if parameter is not None:
            assert not parameter[101:].any()
            assert not parameter.grad[101:].any()
            assert parameter.grad[:101].any()


def test_cutting_undoes_it(pair):
    plain, padded = pair
    cut_vocabulary(padded)
    ours, theirs = padded.state_dict(), plain.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    tied = padded.get_input_embeddings().weight is padded.get_output_embeddings().weight
    assert tied == (plain.get_input_embeddings().weight is plain.get_output_embeddings().weight)
    assert not padded.get_output_embeddings()._forward_hooks


@pytest.mark.parametrize(
    ("name", "config", "why"),
    [
        ("xlstm", {"hidden_size": 16, "num_hidden_layers": 1, "num_heads": 2}, "embeddings"),
        ("moshi", {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}, "102 and 101 rows"),
    ],
)
def test_a_type_that_transformers_cannot_resize_rightly_is_refused(name, config, why):
    with pytest.raises(ConfigError, match=f"`{name}` cannot be padded: .*{why}"):
        build_model(ModelConfig(type=name, config=config, pad_vocab_to_multiple=64), **SIZES, seed=0)


def test_a_model_whose_logits_would_change_is_refused():
    model = build_model(ModelConfig(type="gpt2", config=MODELS[0][1]), **SIZES, seed=0)

    def by_the_rows(module, inputs, output):
        output.logits = output.logits / module.get_input_embeddings().weight.shape[0]
        return output

    model.register_forward_hook(by_the_rows)
    with pytest.raises(ConfigError, match="cannot be padded: its logits change"):
        pad_vocabulary(model, 64)


def test_building_it_moves_no_random_generator():
    before = torch.random.get_rng_state()
    build_model(ModelConfig(type="gpt2", config=MODELS[0][1], pad_vocab_to_multiple=64), **SIZES, seed=0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_one_is_no_padding_and_the_config_says_nothing_of_it():
    from lmbatch.config import identity

    assert identity(ModelConfig(type="gpt2", pad_vocab_to_multiple=1)) == identity(ModelConfig(type="gpt2"))
