"""One submission: a folder that tells everything about it, an array job, and what its elements left behind.

::

    FOLDER/batches.json     written first: which element does which tasks (a later driver reads it)
    FOLDER/…_submitted.pkl  submitit's; …_result.pkl, …_log.out, …_log.err beside it

The folder's path is the job's comment, so that the queue alone leads back to it. Credentials are in none of these
files: sbatch hands the environment on.
"""

from __future__ import annotations

import json
import os
import pickle
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import DelayedSubmission, JobPaths

from lmbatch.config import ContainerSite, SlurmSite
from lmbatch.launch.backend import TaskBatch, TaskFailure
from lmbatch.launch.batch_file import batch_of
from lmbatch.launch.contained_batch import ContainedBatch, contained

_INDEX = "batches.json"
_GIB = 2**30
_MIB = 2**20
_KEPT = "SLURM_CONF"


@dataclass(frozen=True)
class Submission:
    """Batches that go to the queue together; ``throttle`` of them may run at a time.

    ``memory`` is asked for instead of the site's, in bytes. Each is done in ``container``, which is not saved: a later
    driver's site says what it is.
    """

    folder: Path
    batches: tuple[TaskBatch, ...]
    throttle: int
    memory: int | None = None
    container: ContainerSite | None = None

    def save(self) -> None:
        """Write the index. It must stand before the job does: a driver may be killed in between."""
        self.folder.mkdir(parents=True, exist_ok=True)
        value = {"throttle": self.throttle, "memory": self.memory, "batches": [asdict(batch) for batch in self.batches]}
        (self.folder / _INDEX).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Submission | None:
        """What an earlier driver saved; None if it is not there or not readable."""
        try:
            value = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
            batches = tuple(map(batch_of, value["batches"]))
            return Submission(folder, batches, int(value["throttle"]), value.get("memory"))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def work(self, batch: TaskBatch, cpus: int) -> TaskBatch | ContainedBatch:
        """What an element calls, with so many cores."""
        return contained(batch, self.container, cpus)

    def paths(self, element: str) -> JobPaths:
        """Where submitit keeps the files of an element."""
        return JobPaths(self.folder, job_id=element, task_id=0)


def new_folder(parent: Path) -> Path:
    """A folder for a submission; nobody else has it."""
    return parent.absolute() / f"slurm-{uuid.uuid4().hex[:12]}"


def sbatch_parameters(site: SlurmSite, submission: Submission, name: str) -> dict[str, Any]:
    """What submitit writes into the sbatch script."""
    named = {"partition": site.partition, "account": site.account, "qos": site.qos, "constraint": site.constraint,
             "exclude": site.exclude}  # fmt: skip
    return {
        **{key: value for key, value in named.items() if value is not None},
        "job_name": name,
        "comment": str(submission.folder),
        "time": minutes_for(site, max(batch.input_bytes for batch in submission.batches)),
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": site.cpus,
        "mem": f"{-(-(submission.memory or site.memory) // _MIB)}M",
        "array_parallelism": submission.throttle,
        "wckey": None,  # submitit's default is one that a site need not have
        "setup": list(site.setup) or None,
        # Since 22.05 srun does not take over what sbatch was asked for.
        "srun_args": [f"--cpus-per-task={site.cpus}"],
        "additional_parameters": {"requeue": True, "export": "ALL", **site.options},
    }


def minutes_for(site: SlurmSite, input_bytes: int) -> int:
    """The time limit of an element with so much input, in whole minutes."""
    return -int(-(site.minutes + input_bytes / _GIB * site.minutes_per_gib) // 1)


def submit(site: SlurmSite, submission: Submission, name: str) -> list[str]:
    """Give it to sbatch; the elements' ids in the order of the batches. Raises what submitit raises."""
    submission.save()
    work = [submission.work(batch, site.cpus) for batch in submission.batches]
    executor = SlurmExecutor(folder=submission.folder, python=site.python)
    executor.update_parameters(**sbatch_parameters(site, submission, name))
    with clean_environment():
        if len(submission.batches) == 1:  # an array of one would be a lone job all the same
            return [str(executor.submit(work[0]).job_id)]
        with executor.batch():
            jobs = [executor.submit(one) for one in work]
        return [str(job.job_id) for job in jobs]


@contextmanager
def clean_environment() -> Iterator[None]:
    """Without the variables of a job that the driver itself may run in: sbatch and srun would obey them."""
    removed = {
        key: os.environ.pop(key)
        for key in tuple(os.environ)
        if key.startswith(("SLURM_", "SBATCH_", "SRUN_")) and key != _KEPT
    }
    try:
        yield
    finally:
        os.environ.update(removed)


def mend_pickle(submission: Submission, element: str, work: TaskBatch | ContainedBatch, minutes: int) -> None:
    """Write the file that tells an element what to do, if a killed driver left it out.

    submitit moves it into place after sbatch has answered; elements wait for it for 60 s.
    """
    path = submission.paths(element).submitted_pickle
    if not path.exists():
        delayed = DelayedSubmission(work)
        delayed.set_timeout(minutes, 3)
        temporary = path.with_suffix(f".{uuid.uuid4().hex}")
        delayed.dump(temporary)
        temporary.rename(path)


def read_result(submission: Submission, element: str) -> dict[str, TaskFailure] | str | None:
    """What an element returned: its failures, its error and remedy in one line, or None if it returned nothing.

    submitit's own way waits 15 s for a file that a killed process cannot have left.
    """
    try:
        with submission.paths(element).result_pickle.open("rb") as file:
            outcome, value = pickle.load(file)  # noqa: S301  (our own, in our own folder)
    except (OSError, EOFError, pickle.UnpicklingError):
        return None
    if outcome == "success":
        failures: dict[str, TaskFailure] = value
        return failures
    *_, before, last = ["", *str(value).strip().splitlines()]
    return f"{before}; {last.strip()}" if last.lstrip().startswith("remedy: ") else last


def last_words(submission: Submission, element: str) -> str:
    """What `telling_line` finds in an element's log."""
    return telling_line(submission.paths(element).stderr)


def telling_line(path: Path) -> str:
    """The line of a log that says most: one about memory, else the last that is not Slurm's or submitit's own noise."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    telling = [line.strip() for line in lines if line.strip() and not line.startswith(("srun: ", "submitit "))]
    of_memory = [line for line in telling if "memory limit" in line or "oom" in line.lower()]
    return (of_memory or telling or [""])[-1][:300]
