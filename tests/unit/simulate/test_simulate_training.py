"""The real checkpoints, ledger and batch script, on nodes of numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from lmbatch.config import TrainConfig, TrainSite
from lmbatch.config.load import build, merge
from lmbatch.errors import UsageError
from lmbatch.simulate import TrainCase, simulate_training
from lmbatch.simulate.machines import Nodes
from support.tiny_run import tiny_settings

NODES = Nodes(count=16, detect=60, requeue=120)
QUIET = TrainCase(NODES, days=1.0, step=10.0, stall=1.0, write=30.0, startup=60.0, queue=100.0)
SITE = TrainSite(nodes=16, processes_per_node=8, minutes=480, notice_seconds=120)


def config(**changes: object) -> TrainConfig:
    return build(TrainConfig, merge(tiny_settings("/none", Path("/none"), save={"every": 20}), changes), "simulated")


def failing(hours: float, **changes: float) -> TrainCase:
    """A failure of some node every ``hours``."""
    return replace(QUIET, nodes=replace(NODES, hours_between_failures=hours * NODES.count), **changes)


def test_a_quiet_day_ends_at_its_time_limits_and_loses_nothing() -> None:
    found = simulate_training(config(), SITE, QUIET)
    assert found.steps_lost == 0
    assert found.ends == {"time limit": 2, "the simulation ends": 1}
    assert sum(found.spent.values()) + found.steps * QUIET.step == pytest.approx(found.seconds, abs=0.01)
    assert found.goodput == pytest.approx(found.steps * QUIET.step / found.seconds)
    assert 0.95 < found.goodput < 1.0
    assert len(found.kept) == 2


def test_a_run_of_so_many_steps_is_done() -> None:
    found = simulate_training(config(), SITE, replace(QUIET, steps=200))
    assert (found.steps, found.ends, found.kept) == (200, {"finished": 1}, (180, 200))
    # 200 steps, ten saves of which training waits for the copy, one start, one wait, one look at the nodes.
    assert found.seconds == pytest.approx(2000 + 10 * 1 + 60 + 30 + found.spent["waiting"])


def test_failures_cost_what_was_not_saved_and_preemptions_with_notice_nothing() -> None:
    failed = simulate_training(config(), SITE, failing(2.0))
    assert failed.ends["node failure"] >= 6
    # In the mean half an interval, the save that was on its way included: (20 / 2 + 31 / 10) steps.
    assert failed.steps_lost / failed.ends["node failure"] == pytest.approx(13, abs=6)
    preempted = simulate_training(config(), SITE, replace(QUIET, hours_between_preemptions=2.0))
    assert preempted.ends["preempted"] >= 6
    assert preempted.steps_lost == 0


def test_notice_that_is_too_short_for_a_save_costs_steps() -> None:
    found = simulate_training(config(), SITE, replace(QUIET, hours_between_preemptions=2.0, write=300.0))
    assert found.ends["preempted, killed before it had saved"] >= 5
    assert found.steps_lost > 0


def test_every_time_adds_up_and_the_seed_decides() -> None:
    case = failing(3.0, hours_between_preemptions=4.0, hours_between_hangs=10.0, damage=0.2, bad_node=0.1)
    found = simulate_training(config(), SITE, case)
    assert found == simulate_training(config(), SITE, case)
    assert found != simulate_training(config(), SITE, replace(case, seed=7))
    assert sum(found.spent.values()) + found.steps * case.step == pytest.approx(found.seconds, abs=0.01)


def test_what_saving_costs_follows_its_settings() -> None:
    busy = replace(QUIET, steps=100, write=300.0)  # a save is due every 200 s
    waits, skips, stops = (
        simulate_training(config(save=save), SITE, busy)
        for save in ({}, {"when_busy": "skip"}, {"asynchronous": False})
    )
    assert (waits.saves, skips.saves, skips.left_out) == (5, 3, 2)
    # Four saves wait for the one before, which takes 100 s longer than 20 steps; each copy takes a second.
    assert waits.spent["stalled"] == pytest.approx(4 * 100 + 5 - 4, abs=5)
    assert skips.spent["stalled"] < waits.spent["stalled"] < stops.spent["stalled"] == 5 * 301


def test_damaged_checkpoints_are_walked_back_over_and_never_resumed_from() -> None:
    found = simulate_training(config(), SITE, failing(2.0, damage=0.5))
    assert found.passed_over > 0
    assert found.steps_lost > simulate_training(config(), SITE, failing(2.0)).steps_lost


def test_a_run_without_progress_stays_ended_until_somebody_comes() -> None:
    found = simulate_training(config(run={"max_idle_attempts": 2}), SITE, failing(0.02, days=0.5))
    assert found.ends["no progress"] >= 1
    assert found.gave_up >= found.ends["no progress"]
    assert found.spent["by hand"] > 0


def test_the_mirror_bears_what_is_told() -> None:
    found = simulate_training(config(save={"store": "memory://none"}), SITE, QUIET)
    assert found.uploaded.bytes_up >= found.saves * QUIET.checkpoint_bytes
    assert found.uploaded.put >= found.saves * 64  # parts of 16 MiB
    assert simulate_training(config(), SITE, QUIET).uploaded.requests == 0


def test_a_case_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="steps that take time"):
        replace(QUIET, step=0.0)
    with pytest.raises(UsageError, match="nodes live"):
        replace(NODES, hours_between_failures=0.0)
    assert math.isinf(NODES.hours_between_failures)
