"""The identity of a step's data, and the seed of its dropout."""

from __future__ import annotations

import numpy as np

from lmbatch.loader import Batch, batches_digest
from lmbatch.train.engine import step_seed

TOKENS = np.arange(24, dtype=np.int64).reshape(4, 6)


def batch(*samples):
    return Batch(first_sample=samples[0], samples=samples, tokens=TOKENS[list(samples)])


def test_the_digest_does_not_depend_on_how_samples_are_spread():
    whole = batches_digest([batch(0, 1, 2, 3)])
    assert batches_digest([batch(2, 3), batch(0, 1)]) == whole
    assert (batches_digest([batch(0, 1)]) + batches_digest([batch(2, 3)])) % 2**64 == whole


def test_the_digest_sees_every_token_and_every_place():
    whole = batches_digest([batch(0, 1)])
    changed = TOKENS[:2].copy()
    changed[1, 5] += 1
    assert batches_digest([Batch(0, (0, 1), changed)]) != whole
    assert batches_digest([Batch(0, (1, 0), TOKENS[:2])]) != whole


def test_seeds_differ_by_run_step_and_rank():
    seeds = {step_seed(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(4)}
    assert len(seeds) == 600
    assert all(0 <= seed < 2**63 for seed in seeds)
