"""What preemptions cost, and how often to save.

With a mean time M between failures and C seconds of training lost to a save, the best interval between saves is about
√(2·C·M): Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974; Daly, "A higher
order estimate of the optimum checkpoint interval for restart dumps", FGCS 22(3), 2006.
"""

from __future__ import annotations

import math

from lmbatch.config.base import Section

_DAY = 86400.0


class Goodput(Section):
    """``steps_lost`` in expectation over the run, ``share`` of the wall time that is useful work, ``seconds`` from the
    first start to the end. A run that loses more than it does has a share of 0, and None for what has no end."""

    steps_lost: float | None
    preemptions: float | None
    share: float
    seconds: float | None


def best_interval(stall: float, per_day: float) -> float | None:
    """Seconds of work between two saves; None without preemptions."""
    return math.sqrt(2.0 * stall * _DAY / per_day) if per_day > 0 else None


def goodput(
    work: float, *, step: float, interval: float, stall: float, restart: float, per_day: float, with_notice: bool
) -> Goodput:
    """``work`` seconds of steps of ``step`` seconds each, a save after every ``interval`` seconds of them that stalls
    them for ``stall``, ``per_day`` preemptions after each of which it takes ``restart`` seconds to be back.

    With notice nothing is lost but the restart; without it, half of an interval on average.
    """
    lost = 0.0 if with_notice else min(interval, work) / 2
    saved = work * (1.0 + stall / interval)
    rate = per_day / _DAY
    alive = 1.0 - rate * (restart + lost)
    if alive <= 0:
        return Goodput(steps_lost=None, preemptions=None, share=0.0, seconds=None)
    seconds = saved / alive
    preemptions = seconds * rate
    return Goodput(
        steps_lost=preemptions * lost / step, preemptions=preemptions, share=work / seconds, seconds=seconds
    )  # fmt: skip
