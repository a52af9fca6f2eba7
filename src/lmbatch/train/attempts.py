"""attempts.jsonl, the run ledger: who trained when, from which step, why it ended, and what was lost.

Events are only ever appended: ``started``, ``resumed``, ``first_step``, ``used``, ``ended``; and ``closed``, which the
*next* attempt writes for one that died without notice.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from lmbatch.errors import NoProgressError
from lmbatch.train.records import Record, RecordLog, read_records

ATTEMPTS_FILE = "attempts.jsonl"
DIED = "died without notice"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One process's (or process group's) try at a run.

    ``why`` is ``finished``, ``stopped``, ``failed`` or ``died without notice``, and None while it runs or before
    anybody noticed its death; ``detail`` is the signal or the error. ``steps_lost`` are the steps that had to
    be taken again: 0 but for a failure, and for a death without notice, where the next attempt fills it in. The peaks
    are those of the main process: resident memory, and tensors on its GPU.
    """

    id: str
    started: str
    pid: int
    host: str
    job_id: str | None
    restarts: int
    world_size: int
    code_version: str
    config: str
    resumed_from: int | None = None
    seconds_to_first_step: float | None = None
    ended: str | None = None
    why: str | None = None
    detail: str | None = None
    last_step: int | None = None
    last_saved_step: int | None = None
    steps_lost: int = 0
    peak_host_bytes: int | None = None
    peak_device_bytes: int | None = None


def read_attempts(run_dir: Path) -> list[Attempt]:
    """The attempts of a run, oldest first; [] for a run that never started."""
    attempts: dict[str, Attempt] = {}
    for event in read_records(run_dir / ATTEMPTS_FILE):
        key = event["attempt"]
        if event["event"] == "started":
            attempts[key] = _started(event)
        elif key in attempts:
            attempts[key] = replace(attempts[key], **_changes(event))
    return list(attempts.values())


def check_progress(earlier: Sequence[Attempt], *, job_id: str | None, step: int, most: int) -> None:
    """Raises NoProgressError if the last ``most`` attempts of this very job saved no step beyond ``step``.

    ``earlier`` are the attempts before this one, ``step`` is where this one would begin. A job that dies before its
    first checkpoint every time would otherwise be requeued without end.
    """

    def is_idle(attempt: Attempt) -> bool:
        began = step if attempt.resumed_from is None else attempt.resumed_from
        return attempt.job_id == job_id and began == step

    idle = list(takewhile(is_idle, reversed(earlier)))
    if job_id is None or len(idle) < most:
        return
    reasons = "; ".join(" ".join(filter(None, (attempt.why or DIED, attempt.detail))) for attempt in reversed(idle))
    raise NoProgressError(
        f"job {job_id} has saved no step after {step} in {len(idle)} attempts, which ended: {reasons}",
        remedy="mend the cause and submit it again; if an attempt is shorter than save.every steps, lower save.every "
        "or ask for more time; run.max_idle_attempts is the limit",
    )


def _started(event: Record) -> Attempt:
    names = ("pid", "host", "job_id", "restarts", "world_size", "code_version", "config")
    return Attempt(id=event["attempt"], started=event["time"], **{name: event[name] for name in names})


def _changes(event: Record) -> dict[str, Any]:
    match event["event"]:
        case "resumed":
            return {"resumed_from": event["step"]}
        case "first_step":
            return {"seconds_to_first_step": event["seconds"]}
        case "ended":
            names = ("why", "detail", "last_step", "last_saved_step")
            lost = (event["last_step"] or 0) - (event["last_saved_step"] or 0)
            return {"ended": event["time"], "steps_lost": lost, **{name: event[name] for name in names}}
        case "used":
            return {name: event[name] for name in ("peak_host_bytes", "peak_device_bytes")}
        case "closed":
            return {name: event[name] for name in ("why", "last_step", "steps_lost")}
        case _:
            return {}


class AttemptLog:
    """Writes the events of one attempt. Closes those before it that died without notice."""

    def __init__(self, run_dir: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self.id = uuid.uuid4().hex[:12]
        self.job_id: str | None = None
        self.earlier = tuple(read_attempts(run_dir))
        self._unclosed = [attempt for attempt in self.earlier if attempt.why is None]
        self._log = RecordLog(run_dir / ATTEMPTS_FILE)

    def started(
        self, *, world_size: int, code_version: str, config: str, environ: Mapping[str, str] | None = None
    ) -> None:
        """The process holds the run. ``restarts`` is Slurm's count, which it does not set before the first requeue."""
        environ = os.environ if environ is None else environ
        self.job_id = environ.get("SLURM_JOB_ID")
        self._append(
            "started", pid=os.getpid(), host=socket.gethostname(), job_id=self.job_id,
            restarts=int(environ.get("SLURM_RESTART_COUNT", "0")), world_size=world_size, code_version=code_version,
            config=config,
        )  # fmt: skip

    def resumed(self, step: int, *, last_logged: int) -> None:
        """The attempt goes on from ``step``; what was logged after it, by an attempt that died, is lost."""
        for attempt in self._unclosed:
            lost = max(0, last_logged - step) if attempt is self._unclosed[-1] else 0
            self._append("closed", attempt=attempt.id, why=DIED, last_step=last_logged, steps_lost=lost)
        self._unclosed = []
        self._append("resumed", step=step)

    def first_step(self, seconds: float) -> None:
        """The first optimizer step of this attempt is done."""
        self._append("first_step", seconds=seconds)

    def used(self, *, peak_host_bytes: int, peak_device_bytes: int | None) -> None:
        """The most memory that the main process had, before it ends."""
        self._append("used", peak_host_bytes=peak_host_bytes, peak_device_bytes=peak_device_bytes)

    def ended(self, why: str, *, detail: str | None, last_step: int | None, last_saved_step: int | None) -> None:
        """The attempt ends by itself: ``finished``, ``stopped`` (detail: by what) or ``failed`` (detail: the error)."""
        self._append("ended", why=why, detail=detail, last_step=last_step, last_saved_step=last_saved_step)
        self._log.close()

    def _append(self, event: str, **values: Any) -> None:
        now = self._now().isoformat(timespec="milliseconds")
        self._log.append({"event": event, "attempt": self.id, "time": now, **values})
        self._log.sync()
