"""Checkpoints and preemptions, on figures that can be checked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmbatch.config import SaveConfig
from lmbatch.estimate.goodput import best_interval, goodput
from lmbatch.estimate.saves import Speeds, saving


def test_what_a_run_writes_and_keeps() -> None:
    found = saving(
        10**8, SaveConfig(every=300, keep=3), steps=1000, epochs=0, speeds=Speeds(write=1e9), asynchronous=False,
        on_gpu=True,
    )  # fmt: skip
    assert found.bytes == 1_200_000_000
    assert found.count == 4  # after 300, 600, 900 and 1,000 steps
    assert (found.written, found.kept) == (4 * found.bytes, 3 * found.bytes)
    assert found.seconds == pytest.approx(0.3 + 1.2 + 1.0)  # copied, written, hashed
    assert found.stall == found.seconds
    assert (found.requests, found.upload_seconds) == (0, 0)
    assert found.notice(2.0) == pytest.approx(2 + 2 * 2.5 + 30)


def test_an_asynchronous_save_stalls_for_the_copy_alone() -> None:
    config = SaveConfig(every=300, store="s3://bucket/runs")
    found = saving(
        10**8, config, steps=1000, epochs=2, speeds=Speeds(write=1e9, upload=1e8), asynchronous=True, on_gpu=True
    )
    assert found.stall == pytest.approx(0.3)
    assert found.upload_seconds == pytest.approx(12)
    assert found.requests == found.count * (7 + 72)  # 1.2 GB in parts of 16 MiB


def test_the_best_interval_is_youngs() -> None:
    """Young (1974): with 50 s for a save and a failure a day, √(2 · 50 · 86,400) = 2,939 s."""
    assert best_interval(50.0, 1.0) == pytest.approx(2939.39, rel=1e-5)
    assert best_interval(50.0, 0.0) is None


@given(st.floats(0.1, 100), st.floats(0.5, 24))
def test_no_other_interval_is_much_better(stall: float, per_day: float) -> None:
    """A first-order optimum: within 2 % of the best of many intervals."""
    best = best_interval(stall, per_day)
    assert best is not None

    def share(interval: float) -> float:
        return goodput(1e6, step=1.0, interval=interval, stall=stall, restart=0.0, per_day=per_day,
                       with_notice=False).share  # fmt: skip

    assert share(best) >= max(share(best * 1.3**power) for power in range(-12, 13)) - 0.02


def test_goodput_by_hand() -> None:
    """A day of work, a save of 36 s every hour (1 %), 4 preemptions a day of 120 s, half an hour lost in each."""
    common = {"step": 1.0, "interval": 3600.0, "stall": 36.0, "restart": 120.0, "per_day": 4.0}
    told = goodput(86400.0, with_notice=True, **common)
    assert told.share == pytest.approx((1 - 4 * 120 / 86400) / 1.01)
    assert told.steps_lost == 0
    untold = goodput(86400.0, with_notice=False, **common)
    assert untold.share == pytest.approx((1 - 4 * 1920 / 86400) / 1.01)
    assert untold.preemptions is not None
    assert untold.steps_lost == pytest.approx(untold.preemptions * 1800)
    assert untold.seconds == pytest.approx(86400 / untold.share)


def test_a_run_that_never_gets_on() -> None:
    found = goodput(1e6, step=1.0, interval=1e5, stall=1.0, restart=60.0, per_day=24.0, with_notice=False)
    assert (found.share, found.seconds) == (0.0, None)
