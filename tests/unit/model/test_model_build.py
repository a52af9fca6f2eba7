"""Models by config: filled-in sizes, refused keys, seeded initialisation."""

from __future__ import annotations

import pytest
import torch

from lmbatch.config import ModelConfig
from lmbatch.errors import ConfigError
from lmbatch.model import build_model, model_config

TINY_GPT2 = ModelConfig(type="gpt2", config={"n_layer": 2, "n_embd": 16, "n_head": 2})
TINY_LLAMA = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY_QWEN2 = {**TINY_LLAMA, "num_key_value_heads": 1}
SIZES = {"vocab_size": 101, "sequence_length": 32, "eod_id": 7}


def test_vocabulary_context_and_special_ids_are_filled_in():
    built = model_config(TINY_GPT2, **SIZES)
    assert (built.vocab_size, built.n_positions, built.eos_token_id, built.bos_token_id) == (101, 32, 7, 7)
    assert built.n_layer == 2


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2", "bloom", "opt"])
def test_no_token_is_a_padding_token_whose_embedding_would_never_learn(name):
    small = {"bloom": {"hidden_size": 16, "n_layer": 1, "n_head": 2},
             "opt": {"hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                     "word_embed_proj_dim": 16}, "gpt2": TINY_GPT2.config, "qwen2": TINY_QWEN2}  # fmt: skip
    model = build_model(ModelConfig(type=name, config=small.get(name, TINY_LLAMA)), **SIZES, seed=0)
    tokens = torch.arange(32).remainder(101).reshape(1, -1)
    model(input_ids=tokens).logits.square().sum().backward()
    gradient = model.get_input_embeddings().weight.grad
    assert (gradient[:32].abs().sum(dim=1) > 0).all()


def test_an_alias_names_the_same_setting():
    assert model_config(ModelConfig(type="gpt2", config={"hidden_size": 24, "n_head": 2}), **SIZES).n_embd == 24
    longer = ModelConfig(type="gpt2", config={**TINY_GPT2.config, "max_position_embeddings": 64})
    assert model_config(longer, **SIZES).n_positions == 64


def test_rotary_base_may_be_given_in_its_old_spelling():
    built = model_config(ModelConfig(type="llama", config={**TINY_LLAMA, "rope_theta": 5e5}), **SIZES)
    assert built.rope_parameters["rope_theta"] == 5e5


def test_an_unknown_type_names_the_nearest():
    with pytest.raises(ConfigError, match=r"model\.type `gpt22`.*\n.*gpt2"):
        model_config(ModelConfig(type="gpt22"), **SIZES)


def test_a_type_that_is_no_causal_model_is_refused():
    with pytest.raises(ConfigError, match="no causal language model"):
        model_config(ModelConfig(type="vit"), **SIZES)


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match=r"model\.config\.n_layers.*\n.*n_layer"):
        model_config(ModelConfig(type="gpt2", config={"n_layers": 2}), **SIZES)


def test_a_value_of_the_wrong_type_is_refused():
    with pytest.raises(ConfigError, match="n_layer"):
        model_config(ModelConfig(type="gpt2", config={"n_layer": "two"}), **SIZES)


def test_a_position_table_shorter_than_the_sequence_is_refused():
    with pytest.raises(ConfigError, match=r"16 positions are fewer than data\.sequence_length = 32"):
        model_config(ModelConfig(type="gpt2", config={"n_positions": 16}), **SIZES)


def test_a_vocabulary_smaller_than_the_tokenizer_is_refused_and_a_rounded_one_is_not():
    with pytest.raises(ConfigError, match="vocab_size is 100"):
        model_config(ModelConfig(type="gpt2", config={"vocab_size": 100}), **SIZES)
    assert model_config(ModelConfig(type="gpt2", config={"vocab_size": 128}), **SIZES).vocab_size == 128


def test_initialisation_depends_on_the_seed_alone():
    torch.manual_seed(1)
    first = build_model(TINY_GPT2, **SIZES, seed=3).state_dict()
    before = torch.get_rng_state()
    again = build_model(TINY_GPT2, **SIZES, seed=3).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    other = build_model(TINY_GPT2, **SIZES, seed=4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["transformer.wte.weight"], other["transformer.wte.weight"])
