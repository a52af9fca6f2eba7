"""Locks that the kernel frees when their holder dies: one writer for a run folder, one owner for an attempt."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
import weakref
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lmbatch.checkpoint.files import disk_errors
from lmbatch.errors import CheckpointError, RunBusyError

_POLL_SECONDS = 0.2
_JOB_ID_VARIABLE = "SLURM_JOB_ID"


class FileLock:
    """An exclusive ``flock`` on a file. It dies with this process, however this process dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Try once. False if somebody else holds it; CheckpointError if the file system knows no locks."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise CheckpointError(
                f"{self.path}: the file system cannot lock a file: {error}",
                remedy="mount it with flock support, or put the run folder on another file system",
            ) from error
        self._descriptor = descriptor
        _held.add(self)
        return True

    def write(self, data: bytes) -> None:
        """Put facts about the holder into the locked file."""
        assert self._descriptor is not None, "a lock that is not held has no facts"
        with disk_errors(self.path, "writing"):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, data, 0)

    def free(self) -> None:
        """Let go; no error if it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _forget_after_fork() -> None:
    """A forked child shares the lock; without this, a child that outlives the holder would go on holding it."""
    for lock in list(_held):
        lock.free()


os.register_at_fork(after_in_child=_forget_after_fork)


class RunLock:
    """One training process to a run folder: ``with RunLock(run_dir, wait_seconds=60): …``.

    The file ``lock`` in the folder names the holder (pid, host, job id, since). It is never removed: whether it is
    locked counts, not whether it is there. Raises RunBusyError, naming the holder, if the lock is not free within
    ``wait_seconds``: a resumed job may start while the preempted one is still saving.
    """

    def __init__(self, run_dir: Path, *, wait_seconds: float = 0.0) -> None:
        self._path = run_dir / "lock"
        self._wait_seconds = wait_seconds
        self._lock = FileLock(self._path)

    def acquire(self) -> None:
        """Take the lock, or raise RunBusyError after the wait."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self._wait_seconds
        while not self._lock.take():
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._busy()
            time.sleep(min(_POLL_SECONDS, left))
        self._lock.write(json.dumps(_my_facts(), ensure_ascii=False).encode() + b"\n")

    def release(self) -> None:
        """Let go; no error if it is not held."""
        self._lock.free()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _busy(self) -> RunBusyError:
        facts = read_holder(self._path.parent)
        job = f", job {facts['job_id']}" if facts.get("job_id") else ""
        holder = f"process {facts.get('pid', '?')} on {facts.get('host', '?')}{job}, since {facts.get('since', '?')}"
        return RunBusyError(
            f"{self._path.parent}: another process is training here: {holder}",
            remedy="wait until it has ended, stop it, or give this run another name",
        )


def is_locked(run_dir: Path) -> bool:
    """Does a process train into this folder at the moment? What the lock says of its last holder stays as it is."""
    path = run_dir / "lock"
    if not path.exists():
        return False
    lock = FileLock(path)
    if not lock.take():
        return True
    lock.free()
    return False


def read_holder(run_dir: Path) -> dict[str, Any]:
    """The facts that the last holder of a run folder's lock wrote; {} if there are none to be read."""
    try:
        facts = json.loads((run_dir / "lock").read_bytes())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _my_facts() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "job_id": os.environ.get(_JOB_ID_VARIABLE),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
