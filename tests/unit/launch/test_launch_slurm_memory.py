"""Tasks whose element ran out of memory get more: what is asked for, for whom, and where it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmbatch.config import SlurmSite
from lmbatch.launch.backend import TaskBatch
from lmbatch.launch.slurm import SlurmBackend
from lmbatch.launch.slurm_commands import Ending, Limits, QueueRow, SlurmCommands
from lmbatch.launch.slurm_memory import MemoryNeeds, is_out_of_memory
from lmbatch.launch.slurm_submit import Submission, sbatch_parameters
from lmbatch.preprocess import PlannedPiece, Task

GIB = 2**30
TASKS = [Task(id=f"task-{number:06d}", pieces=(PlannedPiece(file=0, start=0, end=1, bytes=1),)) for number in range(6)]
KILLED = Ending("OUT_OF_MEMORY", 0, 9, "n1")


class Queue(SlurmCommands):
    """A queue that holds what was submitted until the test takes it out, with the ending that the test names."""

    def __init__(self) -> None:
        self.rows: list[QueueRow] = []
        self.ended: dict[str, Ending] = {}
        self.submissions: list[Submission] = []

    def limits(self) -> Limits:
        return Limits(100, 100)

    def queue(self, name: str) -> list[QueueRow]:
        return list(self.rows)

    def endings(self, ids: object) -> dict[str, Ending]:
        return self.ended

    def set_throttle(self, array: str, elements: int) -> None:
        pass

    def submit(self, site: SlurmSite, submission: Submission, name: str) -> list[str]:
        submission.save()
        self.submissions.append(submission)
        ids = [f"{100 * len(self.submissions)}_{index}" for index in range(len(submission.batches))]
        self.rows += [QueueRow(one, "RUNNING", "None", str(submission.folder)) for one in ids]
        return ids

    def end(self, backend: SlurmBackend, element: str, ending: Ending) -> str:
        """It leaves the queue; the reason that the driver is given."""
        self.rows = [row for row in self.rows if row.id != element]
        self.ended[element] = ending
        backend._next_look = 0.0
        [end] = backend.poll(())
        return end.error or ""


@pytest.fixture
def queue() -> Queue:
    return Queue()


def backend_on(queue: Queue, folder: Path, **changes: object) -> SlurmBackend:
    site = SlurmSite.model_validate({"max_parallel": 9, "batch_bytes": 1, "memory": GIB, **changes})
    made = SlurmBackend(folder, site, queue, give=queue.submit)
    made.adopt("run")
    return made


def send(backend: SlurmBackend, tasks: list[Task]) -> list[Task]:
    groups = backend.deal(tasks)
    backend.submit([TaskBatch("file:///s", tuple(task.id for task in group), "/spool") for group in groups])
    return tasks[sum(map(len, groups)) :]


def test_it_is_submitted_again_with_more_in_an_array_of_its_own(
    queue: Queue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = backend_on(queue, tmp_path)
    send(backend, TASKS[:2])
    reason = queue.end(backend, "100_0", KILLED)
    assert "OUT_OF_MEMORY" in reason
    assert "1024 MiB were not enough: its tasks are submitted again with 2048 MiB" in reason
    assert "2048 MiB" in caplog.text
    left = send(backend, [TASKS[0], *TASKS[2:]])
    assert left == TASKS[2:]  # they need no more, so they wait for an array of theirs
    assert send(backend, left) == []
    assert [one.memory for one in queue.submissions] == [None, 2 * GIB, None]
    assert [sbatch_parameters(SlurmSite(memory=GIB), one, "x")["mem"] for one in queue.submissions] == [
        "1024M",
        "2048M",
        "1024M",
    ]


def test_it_ends_at_the_limit_of_the_site(queue: Queue, tmp_path: Path) -> None:
    backend = backend_on(queue, tmp_path, max_memory=3 * GIB)
    reasons = []
    for number in range(3):
        send(backend, TASKS[:1])
        reasons.append(queue.end(backend, f"{100 * (number + 1)}_0", KILLED))
    assert [one.memory for one in queue.submissions] == [None, 2 * GIB, 3 * GIB]
    assert "allows no more" in reasons[-1]


def test_a_site_may_forbid_it(queue: Queue, tmp_path: Path) -> None:
    backend = backend_on(queue, tmp_path, max_memory=GIB)
    send(backend, TASKS[:1])
    assert "allows no more" in queue.end(backend, "100_0", KILLED)
    send(backend, TASKS[:1])
    assert queue.submissions[-1].memory is None


def test_another_death_asks_for_no_more(queue: Queue, tmp_path: Path) -> None:
    backend = backend_on(queue, tmp_path)
    send(backend, TASKS[:1])
    assert "not enough" not in queue.end(backend, "100_0", Ending("FAILED", 9, 0, "n1"))
    send(backend, TASKS[:1])
    assert queue.submissions[-1].memory is None


def test_the_next_driver_knows_what_an_element_had(queue: Queue, tmp_path: Path) -> None:
    first = backend_on(queue, tmp_path)
    send(first, TASKS[:1])
    queue.end(first, "100_0", KILLED)
    send(first, TASKS[:1])
    second = backend_on(queue, tmp_path)
    assert "submitted again with 4096 MiB" in queue.end(second, "200_0", KILLED)


def test_signs_of_it() -> None:
    assert is_out_of_memory(KILLED, "")
    assert is_out_of_memory(None, "slurmstepd: error: Detected 1 oom_kill event: Some of the step's memory limit")
    assert is_out_of_memory(Ending("FAILED", 9, 0, "n"), "slurmstepd: error: Detected 1 oom-kill event(s)")
    assert not is_out_of_memory(Ending("FAILED", 1, 0, "n"), "TokenizerError: no room")
    assert not is_out_of_memory(None, "")


def test_without_a_limit_it_is_four_times_the_usual() -> None:
    needs = MemoryNeeds(SlurmSite(memory=GIB))
    for _ in range(5):
        needs.ran_out(["a"], needs.of(["a"]))
    assert needs.of(["a", "b"]) == 4 * GIB
    assert needs.of(["b"]) is None
