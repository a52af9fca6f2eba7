"""The learning rate at chosen steps, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from lmbatch.config import OptimizerConfig, ScheduleConfig, TrainConfig
from lmbatch.errors import ConfigError
from lmbatch.train.schedule import check_schedule, lr_at, total_steps

ADAM = OptimizerConfig(lr=2.0)


def rates(total, **schedule):
    return [lr_at(step, ADAM, ScheduleConfig(**schedule), total) for step in range(total)]


def test_warm_up_rises_linearly_from_above_zero_to_the_peak():
    assert rates(8, name="constant", warmup_steps=4) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0]


def test_linear_falls_over_what_the_warm_up_left():
    assert rates(6, name="linear", warmup_steps=2) == [1.0, 2.0, 2.0, 1.5, 1.0, 0.5]


def test_cosine_is_half_way_down_in_the_middle():
    found = rates(11, name="cosine", warmup_steps=1)
    assert found[1] == 2.0
    assert found[6] == pytest.approx(1.0)
    assert found[10] == pytest.approx(1.0 + math.cos(0.9 * math.pi))


def test_the_floor_is_a_share_of_the_peak():
    found = rates(10, name="cosine", decay_steps=4, min_lr_ratio=0.25)
    assert found[2] == pytest.approx(2.0 * (0.25 + 0.75 * 0.5))
    assert found[4:] == [0.5] * 6


def test_wsd_is_stable_and_falls_in_its_last_phase():
    found = rates(10, name="wsd", warmup_steps=2, decay_steps=4)
    assert found == [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.5, 1.0, 0.5]


def test_wsd_decays_over_a_tenth_unless_told_otherwise():
    found = rates(30, name="wsd")
    assert found[26:] == [2.0, 2.0, pytest.approx(2.0 * 2 / 3), pytest.approx(2.0 / 3)]


def test_phases_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="5 steps of warm-up and 6 of decay do not fit into 10 steps"):
        check_schedule(ScheduleConfig(warmup_steps=5, decay_steps=6), 10)
    check_schedule(ScheduleConfig(warmup_steps=5, decay_steps=5), 10)
    check_schedule(ScheduleConfig(warmup_steps=50), 10)


def config(**length):
    data = {"store": "s", "sequence_length": 8}
    fixed = {"run": {"name": "r"}, "data": data, "model": {"type": "gpt2"}, "optimizer": {"lr": 1}}
    return TrainConfig.model_validate({**fixed, "batch": {"size": 4, "micro": 2}, **length})


def test_epochs_become_the_whole_batches_that_fit():
    assert total_steps(config(epochs=1), samples_per_epoch=11) == 2
    assert total_steps(config(epochs=2.5), samples_per_epoch=11) == 6
    assert total_steps(config(steps=7), samples_per_epoch=11) == 7


def test_less_than_one_batch_is_refused():
    with pytest.raises(ConfigError, match="less than one batch"):
        total_steps(config(epochs=0.1), samples_per_epoch=11)
