"""One norm, however the gradients are cut into pieces; clipping as torch does it."""

from __future__ import annotations

import math

import pytest
import torch

from lmbatch.train.gradient_norm import clip, sum_of_squares


def test_the_norm_does_not_depend_on_the_pieces():
    values = torch.randn(3_000_000, generator=torch.Generator().manual_seed(0))
    whole = math.sqrt(sum_of_squares([values]))
    assert math.sqrt(sum_of_squares(list(values.split(7919)))) == pytest.approx(whole, rel=1e-12)
    assert whole == pytest.approx(math.sqrt(float(values.double().square().sum())), rel=1e-12)


def test_nothing_has_no_norm():
    assert sum_of_squares([]) == sum_of_squares([torch.zeros(0)]) == 0.0


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping_is_that_of_torch(limit):
    parameters = [torch.nn.Parameter(torch.zeros(3, 4)), torch.nn.Parameter(torch.zeros(5))]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape)
    own = [parameter.grad.clone() for parameter in parameters]
    norm = sum_of_squares(own).sqrt()
    clip(own, norm, limit)
    assert float(torch.nn.utils.clip_grad_norm_(parameters, limit)) == pytest.approx(float(norm), rel=1e-6)
    for mine, parameter in zip(own, parameters, strict=True):
        torch.testing.assert_close(mine, parameter.grad)


@pytest.mark.parametrize("norm", [math.nan, 3.0])
def test_no_limit_and_no_number_change_nothing(norm):
    gradient = torch.ones(4)
    clip([gradient], torch.tensor(norm), None if norm == 3.0 else 1.0)
    assert gradient.tolist() == [1.0] * 4
