"""The Slurm backend against a queue that a test writes: what it submits, when a batch has ended, and why."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission, FailedJobError

from lmbatch.config import SlurmSite
from lmbatch.errors import SchedulerError
from lmbatch.launch import slurm
from lmbatch.launch.backend import TaskBatch, TaskFailure
from lmbatch.launch.slurm import SlurmBackend
from lmbatch.launch.slurm_commands import Ending, Limits, QueueRow, SlurmCommands
from lmbatch.launch.slurm_submit import Submission, clean_environment, minutes_for, read_result, sbatch_parameters
from lmbatch.preprocess import PlannedPiece, Task

TASKS = [Task(id=f"task-{number:06d}", pieces=(PlannedPiece(file=0, start=0, end=1, bytes=1),)) for number in range(40)]


@dataclass
class FakeSlurm(SlurmCommands):
    """A queue and an accounting that the test fills; ``asked`` notes what was done to jobs."""

    array: int = 4
    jobs: int = 100
    rows: list[QueueRow] = field(default_factory=list)
    ended: dict[str, Ending] = field(default_factory=dict)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    unreachable: bool = False

    def limits(self) -> Limits:
        return Limits(self.array, self.jobs)

    def queue(self, name: str) -> list[QueueRow]:
        if self.unreachable:
            raise SchedulerError("the controller does not answer")
        return list(self.rows)

    def endings(self, ids: object) -> dict[str, Ending]:
        return self.ended

    def set_throttle(self, array: str, elements: int) -> None:
        self.asked.append(("throttle", array, str(elements)))

    def cancel(self, name: str) -> None:
        self.asked.append(("cancel", name))
        self.rows = []

    def cancel_element(self, element: str) -> None:
        self.asked.append(("cancel", element))


@dataclass
class Clock:
    """Time that passes when the test says so."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Bench:
    """A backend on a fake Slurm, with a sbatch that puts rows into the queue."""

    folder: Path
    slurm: FakeSlurm
    clock: Clock
    site: SlurmSite = field(default_factory=lambda: SlurmSite(max_parallel=3, poll_seconds=1, batch_bytes=1))
    submissions: list[Submission] = field(default_factory=list)
    refuse: str | None = None
    lose_answer: bool = False

    def backend(self) -> SlurmBackend:
        made = SlurmBackend(self.folder, self.site, self.slurm, give=self.submit, clock=self.clock)
        made.adopt("run")
        return made

    def submit(self, site: SlurmSite, submission: Submission, name: str) -> list[str]:
        submission.save()
        if self.refuse:
            raise FailedJobError(self.refuse)
        self.submissions.append(submission)
        number = 100 * len(self.submissions)
        ids = [f"{number}_{index}" for index in range(len(submission.batches))]
        ids = [str(number)] if len(ids) == 1 else ids
        self.slurm.rows += [QueueRow(one, "PENDING", "None", str(submission.folder)) for one in ids]
        if self.lose_answer:
            raise FailedJobError("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
        return ids

    def send(self, backend: SlurmBackend, tasks: list[Task]) -> list[Task]:
        """Submit what it takes; the tasks that are left."""
        groups = backend.deal(tasks)
        if groups:
            backend.submit([TaskBatch("file:///store", tuple(task.id for task in group), "/spool") for group in groups])
        return tasks[sum(map(len, groups)) :]

    def set_state(self, element: str, state: str | None, reason: str = "None") -> None:
        """Give a row another state, or take it out of the queue."""
        old = next(row for row in self.slurm.rows if row.id == element)
        self.slurm.rows.remove(old)
        if state is not None:
            self.slurm.rows.append(QueueRow(element, state, reason, old.comment))

    def look(self, backend: SlurmBackend, receipts: tuple[str, ...] = (), after: float = 5.0) -> list[slurm.BatchEnd]:
        self.clock.now += after
        return backend.poll(receipts)

    def leave_result(self, element: str, result: tuple[str, object], number: int = 0) -> None:
        self.submissions[number].paths(element).result_pickle.write_bytes(pickle.dumps(result))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "jobs", FakeSlurm(), Clock())


# ── submitting ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_arrays_are_cut_at_the_limit_and_their_throttles_add_up_to_the_site_s(bench: Bench) -> None:
    backend = bench.backend()
    left = bench.send(backend, TASKS)
    assert [len(one.batches) for one in bench.submissions] == [4]
    assert bench.submissions[0].throttle == 3
    assert bench.send(backend, left) == left  # three may run, and the first array has four
    for element in ("100_0", "100_1"):
        bench.leave_result(element, ("success", {}))
        bench.set_state(element, None)
    assert len(bench.look(backend)) == 2
    left = bench.send(backend, left)
    assert bench.submissions[1].throttle == 1
    for element in ("100_2", "100_3"):
        bench.leave_result(element, ("success", {}))
        bench.set_state(element, None)
    bench.look(backend)
    assert bench.slurm.asked == [("throttle", "200", "3")]
    assert bench.send(backend, left) == left


def test_no_more_than_the_cluster_takes_is_queued(bench: Bench) -> None:
    bench.slurm.jobs, bench.slurm.array = 5, 1000
    backend = bench.backend()
    left = bench.send(backend, TASKS)
    assert len(backend.running()) == 5
    assert bench.send(backend, left) == left


def test_a_cluster_without_arrays_gets_lone_jobs(bench: Bench) -> None:
    bench.slurm.array = 0
    backend = bench.backend()
    left = bench.send(backend, TASKS)
    bench.send(backend, left)
    assert [len(one.batches) for one in bench.submissions] == [1, 1]
    assert len(backend.running()) == 2


def test_a_refusal_for_good_is_an_error(bench: Bench) -> None:
    bench.refuse = "sbatch: error: invalid partition specified: nowhere"
    with pytest.raises(SchedulerError, match="invalid partition"):
        bench.send(bench.backend(), TASKS)


def test_a_refusal_for_now_is_tried_again_later(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.refuse = "sbatch: error: AssocMaxSubmitJobLimit"
    backend = bench.backend()
    bench.send(backend, TASKS)
    assert "AssocMaxSubmitJobLimit" in caplog.text
    assert len(backend.running()) == 4
    assert backend.at_work() == []
    bench.refuse = None
    bench.look(backend, after=1)
    assert bench.submissions == []
    bench.look(backend, after=60)
    assert len(bench.submissions) == 1
    assert len(backend.running()) == 4


def test_a_lost_answer_of_sbatch_does_not_submit_twice(bench: Bench) -> None:
    bench.lose_answer = True
    backend = bench.backend()
    bench.send(backend, TASKS)
    bench.look(backend, after=60)
    assert len(bench.submissions) == 1
    assert len(backend.running()) == 4
    paths = bench.submissions[0].paths("100_2")
    assert DelayedSubmission.load(paths.submitted_pickle).function == bench.submissions[0].batches[2]


# ── another driver ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_next_driver_finds_what_the_last_one_left(bench: Bench) -> None:
    bench.send(bench.backend(), TASKS)
    bench.set_state("100_1", None)
    second = bench.backend()
    assert [batch.tasks for batch in second.running()] == [("task-000000",), ("task-000002",), ("task-000003",)]
    assert ("throttle", "100", "3") in bench.slurm.asked
    bench.leave_result("100_0", ("success", {}))
    bench.set_state("100_0", None)
    assert [end.batch.tasks for end in bench.look(second)] == [("task-000000",)]


def test_jobs_that_nothing_is_known_of_are_left_alone(bench: Bench) -> None:
    bench.slurm.rows = [QueueRow("7_1", "RUNNING", "None", "(null)"), QueueRow("8", "RUNNING", "None", "/no/where")]
    assert bench.backend().running() == []


def test_cancel_is_by_name_and_never_raises(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    backend = bench.backend()
    bench.send(backend, TASKS)
    backend.cancel()
    assert ("cancel", "lmbatch-run") in bench.slurm.asked
    assert backend.running() == []
    bench.slurm.unreachable = True
    backend.cancel()
    assert "scancel --name=lmbatch-run" in caplog.text


# ── how a batch ends ─────────────────────────────────────────────────────────────────────────────────────────────────
def only(bench: Bench) -> SlurmBackend:
    """A backend with one lone job, 100, that runs."""
    backend = bench.backend()
    bench.send(backend, TASKS[:1])
    bench.set_state("100", "RUNNING")
    assert bench.look(backend) == []
    assert len(backend.at_work()) == 1
    return backend


def test_a_job_that_is_queued_has_not_ended_whatever_accounting_says(bench: Bench) -> None:
    backend = only(bench)
    bench.slurm.ended = {"100": Ending("NODE_FAIL", 0, 0, "n1")}
    bench.set_state("100", "PENDING", "BeginTime")
    assert bench.look(backend, after=600) == []


def test_receipts_end_a_batch_before_its_job_does(bench: Bench) -> None:
    backend = only(bench)
    assert [end.failures for end in bench.look(backend, ("task-000000",))] == [{}]
    assert backend.running() == []
    assert bench.slurm.asked == []


def test_a_requeued_job_with_nothing_left_to_do_is_taken_out(bench: Bench) -> None:
    backend = only(bench)
    bench.set_state("100", "PENDING", "BeginTime")
    bench.look(backend)
    bench.look(backend, ("task-000000",))
    assert bench.slurm.asked == [("cancel", "100")]


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        (Ending("OUT_OF_MEMORY", 0, 125, "n1"), r"OUT_OF_MEMORY"),
        (Ending("TIMEOUT", 0, 0, "n1"), r"TIMEOUT .* on n1"),
        (Ending("NODE_FAIL", 0, 0, "n2"), r"NODE_FAIL .* on n2"),
        (Ending("FAILED", 9, 0, "n1"), r"FAILED \(killed by signal 9\)"),
        (Ending("FAILED", 3, 0, "n1"), r"FAILED \(exit code 3\)"),
        (Ending("COMPLETED", 0, 0, "n1"), r"COMPLETED"),
    ],
)
def test_the_reason_comes_from_accounting_with_the_log_and_its_last_words(
    bench: Bench, ending: Ending, told: str
) -> None:
    backend = only(bench)
    log = bench.submissions[0].paths("100").stderr
    log.write_text("slurmstepd: error: exceeded memory limit (9 > 5)\nTraceback\nsrun: Force Terminated\n")
    bench.slurm.ended = {"100": ending}
    bench.set_state("100", None)
    (end,) = bench.look(backend)
    assert end.error is not None
    assert re.search(told, end.error)
    assert "exceeded memory limit" in end.error
    assert str(log) in end.error
    assert end.failures == {}


def test_while_accounting_lags_nothing_is_concluded_but_not_for_ever(bench: Bench) -> None:
    backend = only(bench)
    bench.set_state("100", None)
    bench.slurm.ended = {"100": Ending("RUNNING", 0, 0, "n1")}
    assert bench.look(backend) == []
    assert bench.look(backend) == []
    (end,) = bench.look(backend, after=60)
    assert end.error
    assert "accounting does not say" in end.error


def test_a_cancelled_job_is_final(bench: Bench) -> None:
    backend = only(bench)
    bench.slurm.ended = {"100": Ending("CANCELLED", 0, 15, "n1")}
    bench.set_state("100", None)
    (end,) = bench.look(backend)
    assert end.failures["task-000000"].final


def test_what_the_tasks_reported_needs_no_accounting(bench: Bench) -> None:
    backend = only(bench)
    failures = {"task-000000": TaskFailure("the input has changed", final=True)}
    bench.leave_result("100", ("success", failures))
    bench.set_state("100", None)
    (end,) = bench.look(backend)
    assert end.failures == failures


def test_an_error_that_submitit_kept_is_the_reason(bench: Bench) -> None:
    backend = only(bench)
    bench.leave_result("100", ("error", "Traceback …\n  File …\nValueError: no such thing"))
    bench.slurm.ended = {"100": Ending("FAILED", 1, 0, "n1")}
    bench.set_state("100", None)
    (end,) = bench.look(backend)
    assert end.error
    assert "ValueError: no such thing" in end.error


def test_an_unreachable_controller_ends_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    backend = only(bench)
    bench.slurm.unreachable = True
    assert bench.look(backend) == []
    assert len(backend.running()) == 1
    assert "cannot be read" in caplog.text


def test_the_queue_is_looked_at_no_more_often_than_the_site_says(bench: Bench) -> None:
    backend = only(bench)
    bench.leave_result("100", ("success", {}))
    bench.set_state("100", None)
    assert bench.look(backend, after=0.5) == []
    assert len(bench.look(backend, after=0.5)) == 1


@pytest.mark.parametrize(("reason", "said"), [("PartitionTimeLimit", True), ("Resources", False)])
def test_a_job_that_will_not_start_is_said_once(
    bench: Bench, caplog: pytest.LogCaptureFixture, reason: str, said: bool
) -> None:
    backend = bench.backend()
    bench.send(backend, TASKS)
    bench.set_state("100_0", "PENDING", reason)
    bench.look(backend)
    bench.look(backend)
    assert caplog.text.count(f"does not start job 100_0: {reason}") == said


# ── what sbatch is asked for ─────────────────────────────────────────────────────────────────────────────────────────
def submission(tmp_path: Path, *sizes: int) -> Submission:
    batches = tuple(TaskBatch("file:///store", (f"task-{n:06d}",), "/spool", size) for n, size in enumerate(sizes))
    return Submission(tmp_path / "slurm-1", batches, 2)


def test_memory_and_time_follow_the_site_and_the_input(tmp_path: Path) -> None:
    site = SlurmSite.model_validate(
        {"memory": "1500MiB", "minutes": 20, "minutes_per_gib": 30, "partition": "cpu", "options": {"nice": "5"}}
    )
    asked = sbatch_parameters(site, submission(tmp_path, 2**30, 3 * 2**29), "lmbatch-run")
    assert (asked["mem"], asked["time"], asked["partition"]) == ("1500M", 65, "cpu")
    assert asked["additional_parameters"] == {"requeue": True, "export": "ALL", "nice": "5"}
    assert "account" not in asked
    assert minutes_for(site, 1) == 21  # never less than what was asked for


def test_a_submission_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = submission(tmp_path, 1, 2)
    saved.save()
    assert Submission.load(saved.folder) == saved
    (saved.folder / "batches.json").write_text("{")
    assert Submission.load(saved.folder) is None
    assert Submission.load(tmp_path / "nowhere") is None


def test_an_elements_error_is_told_with_its_remedy(tmp_path: Path) -> None:
    sent = submission(tmp_path, 1, 2)
    sent.folder.mkdir()
    told = ("ContainerError: there is no such image\n  remedy: make image\n", "line 7\nKeyError: 'x'\n")
    for element, text in zip(("7_0", "7_1"), told, strict=True):
        sent.paths(element).result_pickle.write_bytes(pickle.dumps(("error", f"Traceback:\n{text}")))
    assert read_result(sent, "7_0") == "ContainerError: there is no such image; remedy: make image"
    assert read_result(sent, "7_1") == "KeyError: 'x'"


def test_the_environment_of_a_surrounding_job_does_not_reach_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SBATCH_PARTITION", "SLURM_CONF", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    with clean_environment():
        assert "SLURM_JOB_ID" not in os.environ
        assert "SBATCH_PARTITION" not in os.environ
        assert os.environ["SLURM_CONF"] == os.environ["AWS_SECRET_ACCESS_KEY"] == "x"
    assert os.environ["SLURM_JOB_ID"] == "x"


@pytest.mark.parametrize("call", [lambda slurm: slurm.limits(), lambda slurm: slurm.queue("x")])
def test_without_slurm_the_error_says_what_to_do(
    call: Callable[[SlurmCommands], object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SchedulerError, match=r"(?s)not installed here.*--on local"):
        call(SlurmCommands())
