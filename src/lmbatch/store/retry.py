"""When to try again, and how long to wait before it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """A capped exponential schedule with full jitter; times in seconds.

    Each pause is drawn evenly between 0 and its ceiling, so that a thousand tasks that failed together do not come
    back together (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). After ``attempts`` the
    last error counts, but not before ``patience`` has passed since the first one.
    """

    attempts: int = 8
    base: float = 0.5
    cap: float = 20.0
    patience: float = 0.0

    def ceiling(self, number: int) -> float:
        """The longest pause before attempt ``number``, counted from 1; the first has none."""
        return min(self.cap, self.base * 2.0 ** min(number - 2, 60)) if number > 1 else 0.0

    def ended(self, number: int, waited: float) -> bool:
        """Whether there is no attempt ``number``, so many seconds after the first error."""
        return number > self.attempts and waited >= self.patience


DEFAULT_BACKOFF = Backoff()


def retry(
    operation: Callable[[], T],
    *,
    what: str,
    again: Callable[[Exception], bool],
    reason: Callable[[Exception], str] = str,
    backoff: Backoff = DEFAULT_BACKOFF,
    sleep: Callable[[float], None] = time.sleep,
    uniform: Callable[[float, float], float] = random.uniform,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """The operation's result, tried again for every error that ``again`` accepts; the last attempt's error is raised.

    ``what`` and ``reason(error)`` go into the log, so they must hold no secret.
    """
    first = None
    for number in count(2):
        try:
            return operation()
        except Exception as error:
            first = clock() if first is None else first
            if not again(error) or backoff.ended(number, clock() - first):
                raise
            pause = uniform(0.0, backoff.ceiling(number))
            last = f"for {backoff.patience:.0f} s at least" if backoff.patience else f"of {backoff.attempts}"
            log.warning("%s: %s; attempt %d %s in %.1f s", what, reason(error), number, last, pause)
            sleep(pause)
    raise AssertionError("a count does not end")
