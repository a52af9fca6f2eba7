"""When to try again, and how long to wait before it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """A capped exponential schedule with full jitter; times in seconds.

    Each pause is drawn evenly between 0 and its ceiling, so that a thousand tasks that failed together do not come
    back together (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """

    attempts: int = 8
    base: float = 0.5
    cap: float = 20.0

    def ceilings(self) -> tuple[float, ...]:
        """The longest pause before each attempt but the first."""
        return tuple(min(self.cap, self.base * 2**n) for n in range(self.attempts - 1))


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
) -> T:
    """The operation's result, tried again for every error that ``again`` accepts; the last attempt's error is raised.

    ``what`` and ``reason(error)`` go into the log, so they must hold no secret.
    """
    for number, ceiling in enumerate(backoff.ceilings(), start=2):
        try:
            return operation()
        except Exception as error:
            if not again(error):
                raise
            pause = uniform(0.0, ceiling)
            log.warning("%s: %s; attempt %d of %d in %.1f s", what, reason(error), number, backoff.attempts, pause)
            sleep(pause)
    return operation()
