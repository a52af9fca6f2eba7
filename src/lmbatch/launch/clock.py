"""The time that a driver goes by: the machine's, or that of a simulation."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the driver of a job asks of time. The module ``time`` is one."""

    def monotonic(self) -> float:
        """Seconds since some moment in the past; they never go back."""

    def sleep(self, seconds: float, /) -> None:
        """Come back after ``seconds``."""


REAL: Clock = time
