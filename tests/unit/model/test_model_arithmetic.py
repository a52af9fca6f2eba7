"""Loss, parameter counts and FLOPs against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from lmbatch.config import ModelConfig
from lmbatch.model import build_model, causal_loss, flops_per_token, parameter_counts


def gpt2(**config):
    settings = {"n_layer": 2, "n_embd": 16, "n_head": 2, **config}
    model = ModelConfig(type="gpt2", config=settings)
    return build_model(model, vocab_size=101, sequence_length=32, eod_id=0, seed=0)


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary_per_token():
    loss = causal_loss(torch.zeros(2, 3, 5, dtype=torch.bfloat16), torch.zeros(2, 3, dtype=torch.int64))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(6 * math.log(5))


def test_the_loss_is_a_sum_and_leaves_masked_labels_out():
    logits = torch.randn(2, 4, 9)
    labels = torch.randint(0, 9, (2, 4))
    masked = labels.clone()
    masked[1] = -100
    assert causal_loss(logits, masked).item() == pytest.approx(causal_loss(logits[:1], labels[:1]).item(), rel=1e-6)


def test_counts_of_a_tied_gpt2():
    counts = parameter_counts(gpt2())
    per_layer = 12 * 16 * 16 + 13 * 16
    assert counts.embedding == 101 * 16 + 32 * 16
    assert counts.non_embedding == 2 * per_layer + 2 * 16
    assert counts.total == counts.embedding + counts.non_embedding


def test_gpt2_small_has_the_parameters_of_the_paper():
    with torch.device("meta"):
        config = ModelConfig(type="gpt2")
        model = build_model(config, vocab_size=50257, sequence_length=1024, eod_id=50256, seed=0)
    assert parameter_counts(model).total == 124_439_808


@pytest.mark.parametrize("tied", [True, False])
def test_flops_count_the_output_projection_once_whether_tied_or_not(tied):
    model = gpt2(tie_word_embeddings=tied)
    multiplied = 2 * (12 * 16 * 16 + 13 * 16) + 2 * 16 + 101 * 16
    assert flops_per_token(model, 32) == 6 * multiplied + 12 * 2 * 16 * 32
