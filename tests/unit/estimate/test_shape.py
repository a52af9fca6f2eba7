"""Counting by arithmetic comes to what transformers builds, to the parameter."""

from __future__ import annotations

import pytest

from lmbatch.config import ModelConfig, TrainConfig
from lmbatch.estimate.shape import KNOWN_TYPES, known_shape
from lmbatch.model import MaskedIds, build_model, parameter_counts
from lmbatch.model.size import planned_shape
from lmbatch.train.planning import shape_of_config

SMALL = {"num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 64, "intermediate_size": 96}
CASES = [
    ("gpt2", {}),
    ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 100, "tie_word_embeddings": False}),
    ("gpt2", {"n_embd": 96, "n_positions": 77, "resid_pdrop": 0.0}),
    ("llama", SMALL),
    ("llama", {**SMALL, "num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True}),
    ("llama", {**SMALL, "head_dim": 32, "tie_word_embeddings": True}),
    ("mistral", SMALL | {"num_attention_heads": 8, "num_key_value_heads": 2}),
    ("qwen2", {**SMALL, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    ("bloom", {"hidden_size": 64, "n_layer": 3, "n_head": 4}),
    ("bloom", {}),
    ("roberta", SMALL),
    ("roberta", {"type_vocab_size": 1, "max_position_embeddings": 514}),
    ("bert", SMALL),
]


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_the_counts_are_those_of_the_built_model(kind: str, settings: dict[str, object]) -> None:
    found = known_shape(kind, settings, vocabulary=1001, sequence=64)
    masked = MaskedIds(0, 1) if kind in ("roberta", "bert") else None
    model = ModelConfig(type=kind, config=settings)
    assert found == planned_shape(model, vocabulary=1001, sequence=64, masked=masked, compute=4)


@pytest.mark.parametrize("kind", KNOWN_TYPES)
def test_the_defaults_are_those_of_transformers(kind: str) -> None:
    masked = MaskedIds(0, 1) if kind in ("roberta", "bert") else None
    model = ModelConfig(type=kind, config={})
    found = known_shape(kind, {}, vocabulary=500, sequence=32)
    assert found == planned_shape(model, vocabulary=500, sequence=32, masked=masked, compute=4)


@pytest.mark.parametrize(
    ("settings", "total"),
    [
        ({}, 124_439_808),  # GPT-2 "124M" and "1.5B": openai's, as Hugging Face counts them
        ({"n_embd": 1600, "n_layer": 48, "n_head": 25}, 1_557_611_200),
    ],
)
def test_published_sizes_of_gpt2(settings: dict[str, object], total: int) -> None:
    shape = known_shape("gpt2", settings, vocabulary=50257, sequence=1024)
    assert shape is not None
    assert shape.parameters == total


def test_published_size_of_llama_7b() -> None:
    shape = known_shape("llama", {}, vocabulary=32000, sequence=2048)
    assert shape is not None
    assert shape.parameters == 6_738_415_616


def test_another_type_is_traced() -> None:
    model = ModelConfig(type="gpt_neox", config=SMALL)
    one, two = (planned_shape(model, vocabulary=300, sequence=64, masked=None, compute=size) for size in (4, 2))
    assert known_shape("gpt_neox", SMALL, vocabulary=300, sequence=64) is None
    assert one.block == "traced"
    assert one.traced is not None
    assert two.traced is not None
    # At least the inputs of the six norms and of the products, at most some hundred numbers of each kind.
    assert 64 * 64 * 4 * 3 * 8 < one.traced < 64 * 64 * 4 * 3 * 60
    assert two.traced < one.traced


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_rows_of_a_padded_vocabulary_are_counted(name: str) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = ModelConfig(type=name, config=small, pad_vocab_to_multiple=64)
    settings = {"run": {"name": "a"}, "data": {"store": "s", "sequence_length": 32}, "model": model, "steps": 1}
    config = TrainConfig.model_validate(settings | {"optimizer": {"lr": 1}, "batch": {"size": 1, "micro": 1}})
    built = build_model(model, vocab_size=101, sequence_length=32, eod_id=7, seed=0)
    assert shape_of_config(config, 101, 4).parameters == parameter_counts(built).total
