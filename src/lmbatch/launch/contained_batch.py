"""A batch that is done in a container: what submitit runs on the node stays outside, the tasks are inside.

::

    submitit (the host's Python) ── ContainedBatch ── RUNTIME … IMAGE … lmbatch task --batch … --answer … --lifeline

Checkpoint and requeue are decided out here: Slurm's signals mean something to submitit alone, and its commands are at
hand. To Slurm and to the driver an element ends as it would without a container: killed by signal 9 where the work was,
else with the work's exit code and its last words in the log, so that what is out of memory here is so there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from lmbatch.config import ContainerSite
from lmbatch.errors import TaskError
from lmbatch.launch.backend import TaskBatch, TaskFailure, die_with_parent
from lmbatch.launch.batch_file import read_answer, write_batch
from lmbatch.launch.contained import work_here
from lmbatch.launch.container import ContainerWork, container_prefix, job_memory, removing_command
from lmbatch.launch.image_check import check_container
from lmbatch.launch.lifeline import NOT_OURS
from lmbatch.store import local_folder

_SECONDS_TO_END = 10.0
_LONGEST_GRACE = 900.0  # between SIGTERM and SIGKILL: KillWait, or the GraceTime of a preemption
_BY_A_SIGNAL = 128  # a shell's exit code for signal N is this plus N; runtimes follow it


@dataclass(frozen=True)
class ContainedBatch:
    """What submitit calls on the node instead of ``batch``."""

    batch: TaskBatch
    container: ContainerSite
    cpus: int = 1

    def __call__(self) -> dict[str, TaskFailure]:
        """Do the tasks in a container. Returns the failures; raises TaskError if no task could be begun."""
        from submitit import JobEnvironment

        if os.environ.get("SUBMITIT_EXECUTOR") == "local":
            die_with_parent()
        job = JobEnvironment()
        return self.run(job.paths.folder.absolute(), str(job.job_id))

    def run(self, folder: Path, job: str) -> dict[str, TaskFailure]:
        """The same for the job of this name, with the files that both sides read and write in ``folder``."""
        request, answer = folder / f"{job}_batch.json", folder / f"{job}_answer.json"
        spool = self.batch.own_spool()
        spool.mkdir(parents=True, exist_ok=True)
        try:
            # Its folder lies in that of this process, which is the one that a sweep of the spool looks for.
            write_batch(request, replace(self.batch, spool=str(spool)))
            answer.unlink(missing_ok=True)  # of an attempt before this one
            code = self._run(folder.parent, f"lmbatch-{job}", request, answer)
        finally:
            self.batch.clear_spool()
        failures = read_answer(answer)
        if failures is None:
            end_like(code, job_memory(os.environ) if self.container.runtime in ("podman", "docker") else None)
        return failures

    def checkpoint(self) -> object:
        """Called by submitit on preemption: the receipts are the state, so the same batch simply runs again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _run(self, jobs: Path, name: str, request: Path, answer: Path) -> int:
        work = work_of(self.batch.store, self.batch.raw, jobs, Path(self.batch.spool), name)
        check_container(self.container, work)  # again, as this is another machine than that of the driver
        command = task_command(self.container, work, request, answer, self.cpus)
        remove = removing_command(self.container, work)
        if not remove:
            return run_on_a_lifeline(command)
        _quietly(remove)  # what an earlier attempt may have left, whose node had no time to tidy up
        try:
            with ending_on_sigterm():
                return run_on_a_lifeline(command)
        except Terminated:
            _quietly(remove)
            time.sleep(_LONGEST_GRACE)  # as without a container: what becomes of the job is decided by Slurm alone
            raise SystemExit(_BY_A_SIGNAL + signal.SIGTERM) from None
        finally:
            _quietly(remove)  # also after a good end: a client that a signal hits while it removes ends as if it had


def contained(batch: TaskBatch, site: ContainerSite | None, cpus: int = 1) -> TaskBatch | ContainedBatch:
    """What submitit is to call for a batch, on so many cores: the batch itself where there is no container."""
    return batch if site is None or site.runtime == "none" else ContainedBatch(batch, site, cpus)


def task_command(site: ContainerSite, work: ContainerWork, request: Path, answer: Path, cpus: int) -> list[str]:
    """The command that does a batch in the container. For pyxis, a plugin of srun, it is a step beside submitit's."""
    step = ["srun", "--overlap", "--nodes=1", "--ntasks=1", f"--cpus-per-task={cpus}", "--export=ALL",
            "--disable-status", "--quiet"]  # fmt: skip
    return [
        *(step if site.runtime == "pyxis" else ()), *container_prefix(site, work),
        "-m", "lmbatch", "task", "--batch", str(request), "--answer", str(answer), "--lifeline",
    ]  # fmt: skip


def work_of(store: str, raw: str | None, jobs: Path, spool: Path | None, name: str | None = None) -> ContainerWork:
    """What tasks need inside: their store and input, if those are folders, the jobs' files, and the spool.

    The folders of a run, not of a process: each is a place in the image that Charliecloud must find there.
    """
    output, inputs = (local_folder(uri) if uri else None for uri in (store, raw))
    written = [folder for folder in (jobs, spool, output) if folder is not None]
    profile = credential_folders(os.environ) if any(uri and uri.startswith("s3://") for uri in (store, raw)) else ()
    read = [folder for folder in (inputs, *profile) if folder is not None]
    return replace(work_here(read, written, os.environ), name=name)


def credential_folders(environ: MutableMapping[str, str]) -> list[Path]:
    """Where the AWS profile lies, if it is used. From then on variables name its files: inside, HOME is another."""
    if environ.get("AWS_ACCESS_KEY_ID"):
        return []
    home = Path(environ.get("HOME") or Path.home()) / ".aws"
    usual = {"AWS_CONFIG_FILE": home / "config", "AWS_SHARED_CREDENTIALS_FILE": home / "credentials"}
    found = {variable: Path(environ.get(variable) or path) for variable, path in usual.items()}
    there = {variable: path.absolute() for variable, path in found.items() if path.is_file()}
    environ.update({variable: str(path) for variable, path in there.items()})
    return [path.parent for path in there.values()]


def run_on_a_lifeline(command: Sequence[str]) -> int:
    """Run it until it ends, or until an exception (submitit's on preemption) ends it; its exit code, -N for signal N.

    Its standard input is a pipe that ends when this process does, however that comes about.
    """
    with signals_held_back():
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        return process.wait()
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Terminated(BaseException):
    """Slurm has sent SIGTERM."""


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """SIGTERM raises `Terminated` meanwhile: SIGKILL follows, and would leave a container that nobody removes."""

    def end(number: int, frame: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def signals_held_back() -> Iterator[None]:
    """A process that is started meanwhile never gets the signals that are not for it; this one gets them later."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NOT_OURS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_like(code: int, memory: int | None = None) -> NoReturn:
    """End this process like one that left no answer and returned ``code``. Raises SystemExit; TaskError for 0.

    ``memory`` is the limit of the container's own, in bytes: Slurm does not see what is killed at it, and is told.
    """
    number = -code if code < 0 else code - _BY_A_SIGNAL
    if number == signal.SIGKILL:  # for want of memory, most likely: Slurm and the driver are to see it
        if memory:
            sys.stderr.write(f"killed by signal 9, most likely at the container's memory limit, {memory >> 20} MiB\n")
            sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    if code == 0:
        raise TaskError("the container ended well, and left no answer", remedy="is its image lmbatch's?")
    raise SystemExit(code if code > 0 else _BY_A_SIGNAL + number)


def _quietly(command: Sequence[str]) -> None:
    if command:
        with suppress(OSError):
            subprocess.run(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False)
