"""Masked models by type: sizes, positions, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForMaskedLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lmbatch.config import ModelConfig, TrainConfig, load_config
from lmbatch.errors import ConfigError
from lmbatch.model import MaskedIds, build_model, model_config, parameter_counts
from lmbatch.model.build import _SHIFTED_POSITIONS

ROOT = Path(__file__).resolve().parents[3]
SIZES = {"vocab_size": 100, "sequence_length": 32, "eod_id": 2, "masked": MaskedIds(first=0, pad=1)}
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def test_roberta_counts_its_positions_from_the_padding_id_on():
    built = model_config(ModelConfig(type="roberta", config=TINY), **SIZES)
    assert built.max_position_embeddings == 34
    assert (built.bos_token_id, built.pad_token_id, built.eos_token_id) == (0, 1, 2)
    model = build_model(ModelConfig(type="roberta", config=TINY), **SIZES, seed=1)
    ids = torch.full((1, 32), 7)
    model.eval()(input_ids=ids)  # the last position is there
    assert model.lm_head.decoder.weight is model.roberta.embeddings.word_embeddings.weight
    with pytest.raises(ConfigError, match=r"33 positions are fewer than data\.sequence_length = 32 \+ 2"):
        model_config(ModelConfig(type="roberta", config={**TINY, "max_position_embeddings": 33}), **SIZES)


def test_bert_counts_them_from_zero():
    assert model_config(ModelConfig(type="bert", config=TINY), **SIZES).max_position_embeddings == 32


@pytest.mark.parametrize("kind", ["albert", "bert", "camembert", "data2vec-text", "deberta-v2", "electra", "ernie",
                                  "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta",
                                  "xlm-roberta-xl", "xmod"])  # fmt: skip
def test_which_types_shift_their_positions_is_what_transformers_does(kind):
    config = CONFIG_MAPPING[kind](num_hidden_layers=1)
    with torch.device("meta"):
        model = AutoModelForMaskedLM.from_config(config)
    shifted = any(
        isinstance(module, nn.Embedding) and "position_embeddings" in name and module.padding_idx is not None
        for name, module in model.named_modules()
    )
    assert shifted == (kind in _SHIFTED_POSITIONS)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("robertta", r"`robertta` is no masked language model.*\n.*did you mean .*roberta"),
        ("gpt2", r"`gpt2` is no masked language model"),
        ("bart", r"`bart` is no masked language model.*\n.*bert, roberta"),
    ],
)
def test_types_that_are_none_are_refused(kind, message):
    with pytest.raises(ConfigError, match=message):
        model_config(ModelConfig(type=kind), **SIZES)


def test_the_full_size_model_has_the_published_number_of_parameters_without_its_pooler():
    config = load_config(TrainConfig, ROOT / "configs" / "train" / "s1_roberta.yaml")
    sizes = {"vocab_size": 52_000, "sequence_length": config.data.sequence_length, "eod_id": 2}
    built = model_config(config.model, **sizes, masked=MaskedIds(first=0, pad=1))
    with torch.device("meta"):
        model = AutoModelForMaskedLM.from_config(built)
    pooler = 768 * 768 + 768  # of the walk-through's transformers; masked language modelling never used it
    assert parameter_counts(model).total == 83_504_416 == 84_095_008 - pooler
    assert model.config.max_position_embeddings == 514
