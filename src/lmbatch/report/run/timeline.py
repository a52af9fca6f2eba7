"""When which attempt trained, as far as the ledger knows, and how much of each had to be done again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lmbatch.train.attempts import Attempt


@dataclass(frozen=True, slots=True)
class Span:
    """One attempt, in seconds since the first one started. ``lost`` are the seconds at its end that were lost.

    ``known`` is False where nobody wrote down its end: then ``end`` is worked out from its steps.
    """

    attempt: Attempt
    start: float
    end: float
    lost: float
    known: bool


def timeline(attempts: Sequence[Attempt], step_seconds: float, now: datetime | None = None) -> tuple[Span, ...]:
    """The attempts on one clock. ``step_seconds``: what a step takes; ``now`` ends the attempt that still runs."""
    if not attempts:
        return ()
    began = [_seconds(attempt.started) for attempt in attempts]
    limits = [*began[1:], (now or datetime.now(UTC)).timestamp()]
    spans = []
    for attempt, start, limit in zip(attempts, began, limits, strict=True):
        end = _seconds(attempt.ended) if attempt.ended else _guess(attempt, start, limit, step_seconds)
        lost = min(end - start, attempt.steps_lost * step_seconds)
        spans.append(Span(attempt, start - began[0], end - began[0], lost, attempt.ended is not None))
    return tuple(spans)


def _guess(attempt: Attempt, start: float, limit: float, step_seconds: float) -> float:
    """The end of one that died, from its steps; one of which nothing is known lasts until ``limit``."""
    if attempt.why is None:
        return limit
    steps = max(0, (attempt.last_step or 0) - (attempt.resumed_from or 0))
    return min(limit, start + (attempt.seconds_to_first_step or 0.0) + steps * step_seconds)


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
