"""What the task at work has done so far: numbers that the task raises, and a heartbeat reads from another thread."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from lmbatch.corpus import FileProbe, Piece, Seen, bytes_behind, piece_bytes


class Counted(Protocol):
    """Counts by name that a task is raising."""

    @property
    def documents(self) -> Mapping[str, int]: ...

    @property
    def dropped(self) -> Mapping[str, int]: ...

    @property
    def quarantined(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """The piece that is being read, and what lies behind the pieces before it."""

    piece: Piece
    probe: FileProbe
    seen: Seen
    bytes_before: int
    records_before: int

    @property
    def bytes_done(self) -> int:
        """Bytes of the task's input behind the reader."""
        return self.bytes_before + bytes_behind(self.piece, self.probe, self.seen)

    @property
    def records(self) -> int:
        """Records of the task so far."""
        return self.records_before + self.seen.records


class LiveTask:
    """The one task that a process is at. Whoever does it calls `begin` and what it can of the rest.

    No lock: each attribute is replaced as a whole, and dictionaries are copied in one step, so a reader in another
    thread sees numbers that may be a record apart, never a broken one.
    """

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}
        self.begin("", 0)

    def begin(self, task: str, size: int, attempt: int = 1) -> None:
        """A task of ``size`` bytes of input begins; ``attempt`` counts how often this process began it."""
        self._reading: Reading | None = None
        self._counted: Counted | None = None
        self._all_read = False
        self.task, self.size, self.attempt, self.tokens = task, size, attempt, 0
        self._clock, self._cpu = time.monotonic(), time.process_time()

    def counts(self, counted: Counted) -> None:
        """Where the task keeps its counts."""
        self._counted = counted

    def reads(self, piece: Piece, probe: FileProbe, seen: Seen) -> None:
        """The task goes on to this piece; ``seen`` is what its reader is given."""
        before = self._reading
        bytes_before = before.bytes_before + piece_bytes(before.piece, before.probe) if before else 0
        self._reading = Reading(piece, probe, seen, bytes_before, before.records if before else 0)

    def has_read_all(self) -> None:
        """Nothing of the task's input is left to read."""
        self._all_read = True

    def failed(self, task: str, message: str) -> None:
        """The process goes on without this task."""
        self.failures = {**self.failures, task: message}

    @property
    def file(self) -> str:
        """The input file that is being read, or nothing."""
        reading = self._reading
        return reading.piece.path if reading else ""

    @property
    def bytes_done(self) -> int:
        """Bytes of input behind the reader."""
        reading = self._reading
        return self.size if self._all_read else min(reading.bytes_done, self.size) if reading else 0

    @property
    def records(self) -> int:
        """Records read."""
        reading = self._reading
        return reading.records if reading else 0

    @property
    def documents(self) -> int:
        """Documents written."""
        return sum(_copy(self._counted.documents).values()) if self._counted else 0

    @property
    def dropped(self) -> dict[str, int]:
        """Records left out, by reason."""
        return _copy(self._counted.dropped) if self._counted else {}

    @property
    def quarantined(self) -> dict[str, int]:
        """Records that could not be read, by reason."""
        return _copy(self._counted.quarantined) if self._counted else {}

    @property
    def seconds(self) -> float:
        """Since the task began."""
        return time.monotonic() - self._clock

    @property
    def cpu_seconds(self) -> float:
        """Of the process since the task began."""
        return time.process_time() - self._cpu


def _copy(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(counts)
