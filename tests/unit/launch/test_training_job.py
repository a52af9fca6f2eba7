"""What a training job is made of, and what a run without Slurm says."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from lmbatch.checkpoint import RunLock, is_locked, read_holder
from lmbatch.config import TrainConfig, TrainSite
from lmbatch.errors import RunBusyError, TaskError, UsageError
from lmbatch.launch.slurm_commands import JobRow, SlurmCommands, parse_history, parse_jobs
from lmbatch.launch.training import find_job, log_of, plan_job, stop_run, submit_job, told_by_slurm
from lmbatch.train.attempts import DIED, Attempt
from support.tiny_run import tiny_config


class Queue(SlurmCommands):
    """A queue with the given jobs; remembers what was asked for."""

    def __init__(self, *rows: JobRow, log: Path | None = None) -> None:
        self.rows, self.log, self.asked = list(rows), log, []

    def jobs(self) -> list[JobRow]:
        return self.rows

    def submit(self, script, arguments) -> str:
        self.asked.append(("submit", script.read_text(encoding="utf-8"), tuple(arguments)))
        return "17"

    def cancel_element(self, element: str) -> None:
        self.asked.append(("cancel", element))

    def log_path(self, job: str) -> Path | None:
        return self.log


def row(run: Path, state: str = "PENDING") -> JobRow:
    return JobRow("12", state, "Resources", "1:00:00", "", str(run))


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return tiny_config(str(tmp_path / "store"), tmp_path)


def test_a_job_keeps_its_script_and_logs_in_the_run_folder(config: TrainConfig, tmp_path: Path) -> None:
    job = plan_job(tmp_path / "c.yaml", config, TrainSite(partition="scav", python="py"), ["steps=3"])
    assert job.run == tmp_path / "tiny"
    assert not job.run.exists()
    queue = Queue(row(tmp_path / "another"))
    done = submit_job(job, queue)
    assert done.log == tmp_path / "tiny" / "logs" / "tiny-17.log"
    ((what, script, arguments),) = queue.asked
    assert (what, arguments) == ("submit", ("--set", "steps=3"))
    for line in (f"--comment={job.run}", f"--output={job.run}/logs/%x-%j.log", "--partition=scav"):
        assert f"#SBATCH {line}\n" in script
    assert f"config={tmp_path}/c.yaml\n" in script


def test_a_second_job_for_a_run_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    job = plan_job(tmp_path / "c.yaml", config, TrainSite(), [])
    queue = Queue(row(job.run, "RUNNING"))
    with pytest.raises(RunBusyError, match="job 12 of this run is RUNNING already"):
        submit_job(job, queue)
    assert not queue.asked


def test_what_the_site_says_goes_before_the_usual_places(config: TrainConfig, tmp_path: Path) -> None:
    job = plan_job(tmp_path / "c.yaml", config, TrainSite(options={"output": "mine.log"}), [])
    assert "#SBATCH --output=mine.log\n" in job.script


def test_stopping_waits_for_the_save_and_cancels_the_requeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "44")
    lock = RunLock(tmp_path)
    lock.acquire()

    def train() -> None:
        while not (tmp_path / "stop").exists():
            time.sleep(0.01)
        lock.release()

    trainer = threading.Thread(target=train)
    trainer.start()
    queue = Queue()
    assert stop_run(tmp_path, seconds=20, slurm=queue) == "saved and stopped; job 44 is cancelled"
    trainer.join()
    assert queue.asked == [("cancel", "44")]


def test_stopping_gives_up_after_its_time_and_says_so(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(TaskError, match="still trains"):
            stop_run(tmp_path, seconds=0, slurm=Queue())
    assert not is_locked(tmp_path)


def test_asking_whether_somebody_trains_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_locked(tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("SLURM_JOB_ID", "44")
    with RunLock(tmp_path):
        pass
    monkeypatch.delenv("SLURM_JOB_ID")
    assert not is_locked(tmp_path)
    assert read_holder(tmp_path)["job_id"] == "44"


def test_a_job_that_waits_in_the_queue_is_taken_out(tmp_path: Path) -> None:
    queue = Queue(row(tmp_path))
    assert stop_run(tmp_path, seconds=0, slurm=queue) == "job 12 is cancelled"
    assert queue.asked == [("cancel", "12")]
    assert not (tmp_path / "stop").exists()


def test_nothing_to_stop_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nobody trains here"):
        stop_run(tmp_path, seconds=0, slurm=Queue())


def test_a_machine_without_slurm_can_stop_a_run_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="nobody trains here"):
        stop_run(tmp_path, seconds=0)


def test_the_newest_log_is_shown_else_the_one_that_slurm_knows(tmp_path: Path) -> None:
    by_slurm = tmp_path / "slurm.log"
    by_slurm.touch()
    assert log_of(tmp_path, "12", Queue(log=by_slurm)) == by_slurm
    with pytest.raises(UsageError, match="no log is known"):
        log_of(tmp_path, None, Queue(log=by_slurm))
    (tmp_path / "logs").mkdir()
    for age, name in ((9, "a-1.log"), (5, "a-2.log"), (7, "a-3.log")):
        (tmp_path / "logs" / name).touch()
        os.utime(tmp_path / "logs" / name, (1e9 - age, 1e9 - age))
    assert log_of(tmp_path, "12", Queue(log=by_slurm)).name == "a-2.log"


def test_rows_of_the_queue(tmp_path: Path) -> None:
    text = "7|RUNNING|None|1-00:00:00|n[1-2]|/runs/a|b\nnonsense\n8|PENDING|Priority|10:00||(null)\n"
    first, second = parse_jobs(text)
    assert (first.id, first.state, first.nodes, first.comment) == ("7", "RUNNING", "n[1-2]", "/runs/a|b")
    assert second.nodes == ""
    assert find_job(Path("/runs/a|b"), Queue(first, second)) == first


def attempt(**changes: object) -> Attempt:
    values = {"id": "a", "started": "", "pid": 1, "host": "n1", "job_id": "7", "restarts": 0, "world_size": 2,
              "code_version": "1", "config": "c", **changes}  # fmt: skip
    return Attempt(**values)


def test_what_could_not_be_written_down_is_asked_of_accounting(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "7|REQUEUED|0:0|n[1-2]\n7|NODE_FAIL|0:0|n[1-2]\n7|RUNNING|0:0|n[1-2]\n"
    monkeypatch.setattr(SlurmCommands, "history", lambda self, job: parse_history(lines))
    told = told_by_slurm([
        attempt(restarts=0, ended="12:00", why="stopped", detail="SIGUSR2"), attempt(restarts=1, why=DIED),
        attempt(restarts=2), attempt(restarts=3), attempt(job_id=None),
    ])  # fmt: skip
    assert [one.detail for one in told] == ["SIGUSR2", "Slurm: NODE_FAIL (exit code 0) on n[1-2]", None, None, None]


def test_without_accounting_the_ledger_stands_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert told_by_slurm([attempt(why=DIED)]) == [attempt(why=DIED)]
