"""The storm itself: faults in an order that the seed decides, each on a run of its own."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

from lmbatch.config.train import SaveConfig
from support.checkpoint_storm.faults import Fault, faults
from support.checkpoint_storm.judge import BAD, Whole, settle
from support.checkpoint_storm.run import BadOutcomeError, Run, Surroundings

ASYNCHRONOUS = "asynchronous" in SaveConfig.model_fields


@dataclass(frozen=True)
class Result:
    """One run: the fault that it met, and what came of it.

    ``said`` is the last error that a user was shown; ``detail`` says what is wrong, and is empty if nothing is.
    """

    number: int
    fault: str
    mirror: str
    asynchronous: bool | None
    attempts: int
    outcome: str
    said: str
    detail: str
    seconds: float

    @property
    def good(self) -> bool:
        """Is this an outcome that may be?"""
        return self.outcome not in BAD


@dataclass(frozen=True)
class Storm:
    """``folder`` holds what is under way; a run that went wrong is left there."""

    around: Surroundings
    folder: Path
    seed: int

    def rage(self, chosen: Iterable[tuple[int, Fault]]) -> Iterator[Result]:
        """Cause one fault after the other."""
        straight = self._straight()
        for number, fault in chosen:
            yield self._one(number, fault, straight)

    def _straight(self) -> Whole:
        run = Run(self.around, self.folder / "straight", Random(self.seed), "folder")
        ended = run.attempt()
        assert ended.code == 0, ended.said
        return Whole.of(run)

    def _one(self, number: int, fault: Fault, straight: Whole) -> Result:
        lot = Random(f"{self.seed}-{number}-{fault.name}")
        way = number % 2 == 0 if ASYNCHRONOUS else None
        run = Run(self.around, self.folder / str(number), lot, lot.choice(fault.mirrors), way, number)
        started, detail = time.monotonic(), ""
        try:
            fault.cause(run)
            outcome = settle(run, straight)
        except BadOutcomeError as bad:
            outcome, detail = bad.kind, bad.detail
        except AssertionError as error:
            outcome, detail = "UNCLEAR", f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - started
        run.close(keep=bool(detail))
        said = next((ended.reason for ended in reversed(run.ended) if ended.reason), "")
        return Result(number, fault.name, run.mirror, way, len(run.ended), outcome, said, detail, seconds)


def drawn(seed: int, runs: int) -> list[tuple[int, Fault]]:
    """Every fault once in an order of chance, then again, until there are so many runs."""
    lot, numbers = Random(seed), count()
    chosen: list[tuple[int, Fault]] = []
    while len(chosen) < runs:
        chosen += [(next(numbers), fault) for fault in lot.sample(faults(), len(faults()))]
    return chosen[:runs]


def fixed(names: Sequence[str] = ()) -> list[tuple[int, Fault]]:
    """Every fault once that no clock decides, in their own order; only those whose name holds one of the words."""
    known = [fault for fault in faults() if not fault.timed]
    return [(n, fault) for n, fault in enumerate(known) if not names or any(name in fault.name for name in names)]
