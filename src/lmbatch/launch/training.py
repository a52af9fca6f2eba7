"""A training job: submit it, find it in the queue, stop it for good, read its log.

::

    config + site ──training_script──▶ RUN/job.sbatch ──sbatch──▶ queue ──▶ attempts ──▶ RUN/logs/NAME-JOB.log
                                                                    │
    find_job · stop_run · log_of  ◀── the job's comment is RUN ─────┘

Slurm is asked where it knows better than the run folder; where it is not installed, the run folder must do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from lmbatch.checkpoint import is_locked, read_holder
from lmbatch.config import TrainConfig, TrainSite
from lmbatch.errors import RunBusyError, SchedulerError, TaskError, UsageError
from lmbatch.launch.sbatch import training_script
from lmbatch.launch.slurm_commands import Ending, JobRow, SlurmCommands
from lmbatch.train.attempts import Attempt

_POLL_SECONDS = 0.2
T = TypeVar("T")


@dataclass(frozen=True)
class TrainingJob:
    """What would be submitted, and with ``id`` what was. ``arguments`` go to training."""

    run: Path
    script: str
    arguments: tuple[str, ...]
    id: str | None = None

    @property
    def path(self) -> Path:
        """Where the script is kept."""
        return self.run / "job.sbatch"

    @property
    def log(self) -> Path | None:
        """The job's log: every attempt appends to it, each line with the number of its process."""
        return None if self.id is None else self.run / "logs" / f"{self.run.name}-{self.id}.log"


def plan_job(
    config_path: Path, config: TrainConfig, site: TrainSite, sets: Sequence[str], site_file: Path | None = None
) -> TrainingJob:
    """The job that trains a config at a site. Nothing is written. ``site_file`` is given where it names a container."""
    run = (Path(config.run.dir) / config.run.name).absolute()
    placed = site.model_copy(
        update={"options": {"output": f"{run}/logs/%x-%j.log", "comment": str(run), "chdir": str(Path.cwd()),
                            **site.options}}
    )  # fmt: skip
    script = training_script(
        placed, name=config.run.name, config=str(config_path.absolute()), python=site.python or sys.executable,
        site_file=str(site_file.absolute()) if site_file else "",
    )  # fmt: skip
    return TrainingJob(run, script, tuple(part for item in sets for part in ("--set", item)))


def submit_job(job: TrainingJob, slurm: SlurmCommands | None = None) -> TrainingJob:
    """Keep the script in the run folder and submit it. Raises RunBusyError if a job of this run waits or runs."""
    slurm = slurm or SlurmCommands()
    if (standing := find_job(job.run, slurm)) is not None:
        raise RunBusyError(
            f"{job.run}: job {standing.id} of this run is {standing.state} already",
            remedy=f"`lmbatch stop {job.run}` stops it after saving; `lmbatch logs {job.run}` shows what it does",
        )
    (job.run / "logs").mkdir(parents=True, exist_ok=True)
    job.path.write_text(job.script, encoding="utf-8")
    return replace(job, id=slurm.submit(job.path, job.arguments))


def find_job(run: Path, slurm: SlurmCommands, last: str | None = None) -> JobRow | None:
    """The job of a run that waits or runs: by its comment, or by the number ``last`` that its ledger names."""
    rows = [row for row in slurm.jobs() if row.comment == str(run.absolute()) or row.id == last]
    return rows[-1] if rows else None


def job_of(run: Path, last: str | None) -> JobRow | None:
    """The same for a report: None also where there is no Slurm, or none that answers."""
    return _quietly(lambda: find_job(run, SlurmCommands(), last))


def told_by_slurm(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The same attempts; those that could not write down how they ended have what accounting says, if it does."""
    unknown = {attempt.job_id for attempt in attempts if attempt.ended is None and attempt.job_id is not None}
    found = {job: _quietly(partial(SlurmCommands().history, job)) or [] for job in sorted(unknown)}
    return [_with_ending(attempt, found.get(attempt.job_id or "", [])) for attempt in attempts]


def _with_ending(attempt: Attempt, history: Sequence[Ending]) -> Attempt:
    """A requeue begins a new line of accounting: the attempt's place in it is its number of restarts."""
    if attempt.ended is not None or attempt.restarts >= len(history) or history[attempt.restarts].state == "RUNNING":
        return attempt
    return replace(attempt, detail=f"Slurm: {history[attempt.restarts]}")


def stop_run(
    run: Path, *, seconds: float, on_wait: Callable[[float], None] = lambda _: None, slurm: SlurmCommands | None = None
) -> str:
    """Ask a run to save and end, wait until it has, and see to it that Slurm does not start it again.

    ``on_wait`` is called with the seconds that have passed. Gives what was done, in words. Raises UsageError if nobody
    trains and nothing is queued, TaskError if it has not ended within ``seconds``.
    """
    slurm = slurm or SlurmCommands()
    busy = is_locked(run)
    job = read_holder(run).get("job_id") if busy else None
    if busy:
        (run / "stop").touch()
        _wait_until_free(run, seconds, on_wait)
    queued = _quietly(lambda: find_job(run, slurm))
    job = job or (queued.id if queued else None)
    if not busy and job is None:
        raise UsageError(f"{run}: nobody trains here, and no job is queued", remedy="see `lmbatch status` of the run")
    if job is not None:  # a saved attempt asks to be requeued
        slurm.cancel_element(str(job))
    return f"saved and stopped{f'; job {job} is cancelled' if job else ''}" if busy else f"job {job} is cancelled"


def _wait_until_free(run: Path, seconds: float, on_wait: Callable[[float], None]) -> None:
    start = time.monotonic()
    while is_locked(run):
        passed = time.monotonic() - start
        if passed > seconds:
            raise TaskError(
                f"{run}: asked to stop {passed:.0f} s ago, and still trains",
                remedy="it stops at the end of a step; wait longer with --timeout, or look at `lmbatch logs`",
            )
        on_wait(passed)
        time.sleep(_POLL_SECONDS)


def log_of(run: Path, job: str | None, slurm: SlurmCommands | None = None) -> Path:
    """The newest log of a run: in its folder, or where Slurm says that job ``job`` writes.

    Raises UsageError if there is none.
    """
    logs = sorted((run / "logs").glob("*.log"), key=lambda path: path.stat().st_mtime)
    if logs:
        return logs[-1]
    found = _quietly(lambda: (slurm or SlurmCommands()).log_path(job)) if job else None
    if found is None or not found.is_file():
        raise UsageError(
            f"{run}: no log is known", remedy="a run started by hand writes to its terminal; sbatch names its --output"
        )
    return found


def _quietly(ask: Callable[[], T]) -> T | None:
    """None where Slurm is not installed or does not answer."""
    try:
        return ask()
    except SchedulerError:
        return None
