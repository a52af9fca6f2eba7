"""Heartbeats: what a worker says of the task that it is at, one small object per worker, written over and over.

::

    worker ── LiveTask ──▶ Pulse (a thread) ──▶ heartbeats/WORKER.json ──▶ driver (launch.watch) · `lmbatch status`

They are for people to look at and decide nothing: what is done is for receipts to say. A heartbeat of a task that has
a receipt is ignored; one that cannot be written is left out, and the task does not notice; the worker takes its own
away at the end of its batch, and the driver those of workers that died.

**Clocks.** No time of day is in a heartbeat, and none is compared. Durations are of the worker's own monotonic clock.
Who looks for longer (the driver, ``status --watch``) calls a worker silent when its ``beat`` has not changed between
looks for a while of the *looker's* monotonic clock. Who looks once sees how much older a heartbeat is than the newest
heartbeat or receipt, by the modification times that the one store gave them: a wrong clock there can make a worker
look late, and does nothing else.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from lmbatch.config.base import Section
from lmbatch.errors import LmbatchError, ObjectNotFoundError
from lmbatch.preprocess.live import LiveTask
from lmbatch.store import FORMAT_VERSION, Store

HEARTBEATS_PREFIX = "heartbeats/"
_READERS = 16
_FAILURES = 5
_FAILURE_CHARACTERS = 300


class Heartbeat(Section):
    """A worker's word on the task it is at; counts are of this attempt at this task.

    ``job`` is the scheduler's name for the process, ``space`` tells where its process id means something. ``beat``
    counts up by one; the next one is due in ``every`` seconds. ``bytes`` is the task's input and ``bytes_done`` what
    lies behind the reader. ``failures`` are tasks that this worker has given up, with the reason.
    """

    format_version: int = FORMAT_VERSION
    worker: str
    pid: int
    space: str
    job: str | None
    task: str
    attempt: int
    beat: int = Field(ge=0)
    every: float = Field(gt=0)
    file: str
    bytes: int = Field(ge=0)
    bytes_done: int = Field(ge=0)
    records: int = Field(ge=0)
    documents: int = Field(ge=0)
    tokens: int = Field(ge=0)
    dropped: dict[str, int]
    quarantined: dict[str, int]
    seconds: float = Field(ge=0, allow_inf_nan=False)
    cpu_seconds: float = Field(ge=0, allow_inf_nan=False)
    memory_bytes: int = Field(ge=0)
    failures: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredHeartbeat:
    """A heartbeat as it lies in the store; ``modified`` is by the store's clock, or None."""

    beat: Heartbeat
    modified: float | None


def heartbeat_key(worker: str) -> str:
    """Where a worker's heartbeat lies."""
    return f"{HEARTBEATS_PREFIX}{worker}.json"


def new_worker_name() -> str:
    """Host and process for people to read, and something that no other worker has."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def process_space() -> str:
    """What must be equal for a process id of there to mean the same here; empty where /proc does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot[:13]}-{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def has_died(beat: Heartbeat) -> bool:
    """True if the process was of this machine and is gone; False also where that cannot be known."""
    space = process_space()
    if not space or beat.space != space:
        return False
    try:
        state = Path(f"/proc/{beat.pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in (b"Z", b"X")  # proc(5): a zombie, or dead


def heartbeat_of(live: LiveTask, worker: str, beat: int, every: float) -> Heartbeat:
    """What ``live`` says now."""
    failures = list(live.failures.items())[-_FAILURES:]
    return Heartbeat(
        worker=worker,
        pid=os.getpid(),
        space=process_space(),
        job=_job(),
        task=live.task,
        attempt=live.attempt,
        beat=beat,
        every=every,
        file=live.file,
        bytes=live.size,
        bytes_done=live.bytes_done,
        records=live.records,
        documents=live.documents,
        tokens=live.tokens,
        dropped=live.dropped,
        quarantined=live.quarantined,
        seconds=live.seconds,
        cpu_seconds=live.cpu_seconds,
        memory_bytes=_memory(),
        failures={task: reason[:_FAILURE_CHARACTERS] for task, reason in failures},
    )


def read_heartbeats(store: Store) -> list[StoredHeartbeat]:
    """Those that are there and can be read, in the order of their workers. Raises StoreError if none can be listed."""
    infos = [info for info in store.list(HEARTBEATS_PREFIX) if info.key.endswith(".json")]
    if not infos:
        return []

    def one(key: str) -> Heartbeat | None:
        try:
            return Heartbeat.model_validate_json(store.read(key))
        except (ObjectNotFoundError, ValidationError):  # its worker is done, or is of another version
            return None

    with ThreadPoolExecutor(min(_READERS, len(infos))) as pool:
        beats = list(pool.map(one, [info.key for info in infos]))
    found = zip(infos, beats, strict=True)
    return [StoredHeartbeat(beat, info.modified) for info, beat in found if beat is not None]


def remove_heartbeats(store: Store, workers: Iterable[str] | None = None) -> None:
    """Take away the heartbeats of these workers, or all of them. One that stays does no harm: raises nothing."""
    with suppress(LmbatchError, OSError):
        keys = [info.key for info in store.list(HEARTBEATS_PREFIX)] if workers is None else map(heartbeat_key, workers)
        for key in keys:
            store.delete(key)


def _job() -> str | None:
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID")


def _memory() -> int:
    """Bytes this process holds now; 0 where /proc does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)
