"""Training on two nodes of a real Slurm that has troubles of its own: limits, restarts, nodes taken away, terminals.

Each drill ends like one in test_slurm_train.py: the same curve over the same samples, and a ledger that tells the truth
about steps lost.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from lmbatch.checkpoint import read_holder
from support.slurm_site import SlurmCluster, wait_until
from support.slurm_train import NewJob, TrainingJob

pytestmark = pytest.mark.slow


def ends(job: TrainingJob) -> list[tuple[str | None, int | None, int]]:
    """Of every attempt: why it ended, the last step that it saved, and the steps that it lost."""
    return [(attempt.why, attempt.last_saved_step, attempt.steps_lost) for attempt in job.status().attempts]


def test_the_time_limit_is_notice(quiet: TrainingJob, new_job: NewJob) -> None:
    job = new_job("limit").submit("--time=1", "--signal=B:USR2@20", hold="step-6")
    job.wait_held(0, "step-6")
    job.wait_over(150)
    job.assert_like(quiet)
    first, *_, last = job.status().attempts
    assert (first.why, first.detail, first.last_saved_step) == ("stopped", "SIGUSR2", 7)
    assert last.why == "finished"
    assert job.status().steps_lost == 0


def test_a_restarted_controller_costs_nothing(quiet: TrainingJob, new_job: NewJob) -> None:
    """Training saves and ends while there is no controller; its job comes back later, and notice reaches it again."""
    job = new_job("controller").submit(hold="step-6,step-12")
    job.wait_held(0, "step-6")
    quiet.cluster.stop_service("slurmctld")
    try:
        (job.run / "stop").touch()
        job.go_on(0)
        wait_until(lambda: f"job {job.id}, attempt 0: exit code 75" in job.text(), what="for the end of the attempt")
        assert ends(job) == [("stopped", 7, 0)]
    finally:
        quiet.cluster.start_service("slurmctld")
    job.wait_held(1, "step-12")
    job.notice()
    job.wait_over()
    job.assert_like(quiet)
    assert ends(job) == [("stopped", 7, 0), ("stopped", 13, 0), ("finished", 20, 0)]


def test_preemptions_in_a_row_and_notice_to_a_part_of_the_job(quiet: TrainingJob, new_job: NewJob) -> None:
    """The second preemption comes while the processes start. Then only the second of two processes hears anything.

    At last the node with the batch shell is drained, of which nobody hears, and set down, which sends SIGTERM to every
    process, KillWait seconds before SIGKILL.
    """
    job = new_job("twice").submit("--partition=scav", hold="step-6,start,step-12,step-15")
    for attempt, place in enumerate(("step-6", "start")):
        job.wait_held(attempt, place)
        job.preempt()
    job.wait_held(2, "step-12")
    job.notice_to_rank(2, "step-12", 1)
    job.wait_held(3, "step-15")
    take_away(quiet.cluster, quiet.cluster.settings.names[0], job)
    job.wait_over(120)
    job.assert_like(quiet)
    assert ends(job) == [
        ("stopped", 7, 0), ("stopped", None, 0), ("stopped", 13, 0), ("stopped", 16, 0), ("finished", 20, 0)
    ]  # fmt: skip
    assert [attempt.detail for attempt in job.status().attempts][2:4] == ["another process", "SIGTERM"]


def take_away(cluster: SlurmCluster, node: str, job: TrainingJob) -> None:
    for state in ("drain", "down"):
        assert job.state() == "RUNNING"
        done = cluster.run("scontrol", "update", f"nodename={node}", f"state={state}", "reason=drill")
        assert done.returncode == 0, done.stderr
    wait_until(lambda: job.state() == "PENDING", what="for the requeue")
    cluster.run("scontrol", "update", f"nodename={node}", "state=resume")  # it may have come back by itself


def test_an_interactive_srun(quiet: TrainingJob, new_job: NewJob) -> None:
    """One Ctrl-C asks srun how the processes are; after two within a second srun kills them before they can save.

    With --disable-status one makes them save. Meanwhile a job that was submitted for the same run ends with an error.
    """
    job = new_job("interactive")
    srun = job.interactive(hold="hang-7")
    wait_until(lambda: (job.run / "metrics.jsonl").exists() and job.status().step == 7, what=job.text()[-2000:])
    check_second_job(new_job("interactive"), job.base / "second.log")
    srun.send_signal(signal.SIGINT)
    wait_until(lambda: "one more within 1 sec to abort" in job.text())
    time.sleep(2.5)  # srun counts whole seconds
    assert srun.poll() is None
    srun.send_signal(signal.SIGINT)
    time.sleep(0.2)
    srun.send_signal(signal.SIGINT)
    assert srun.wait(60) == 128 + signal.SIGKILL
    srun = job.interactive("--disable-status", hold="step-10")
    job.wait_held(0, "step-10")
    srun.send_signal(signal.SIGINT)
    assert srun.wait(60) == 75
    job.submit().wait_over()
    job.assert_like(quiet)
    assert ends(job) == [("died without notice", None, 2), ("stopped", 11, 0), ("finished", 20, 0)]
    assert [attempt.detail for attempt in job.status().attempts] == [None, "SIGINT", None]


def check_second_job(second: TrainingJob, log: Path) -> None:
    second.submit(f"--output={log}", nodes=1)
    second.wait_over()
    said, holder = log.read_text(encoding="utf-8"), "process {pid} on {host}, job {job_id}, since {since}"
    assert "another process is training here: " + holder.format(**read_holder(second.run)) in said
    assert "exit code 1" in said
    ended = second.cluster.run("scontrol", "show", "job", second.id).stdout
    assert "JobState=FAILED" in ended
    assert "Restarts=0" in ended


def test_launch_status_logs_and_stop_without_accounting(quiet: TrainingJob, new_job: NewJob) -> None:
    quiet.cluster.stop_service("slurmdbd")
    try:
        job = new_job("launched").launch(hold="step-6")
        again = ("launch", "train", "--config", str(job.config()), "--on", str(job.site))
        assert "of this run is" in job.lmbatch(*again)
        job.wait_held(0, "step-6")
        assert f"job {job.id}: RUNNING" in job.lmbatch("status", str(job.run))
        assert "0: " in job.lmbatch("logs", str(job.run), "--rank", "0")
        stopping = job.begin("stop", str(job.run))
        wait_until(lambda: (job.run / "stop").exists())
        job.go_on(0)  # only the main process sees the file while it is held
        assert f"saved and stopped; job {job.id} is cancelled" in stopping.communicate(timeout=120)[0]
        wait_until(lambda: job.state() == "", what="for the job to be gone for good")
        job.launch().wait_over()
    finally:
        quiet.cluster.start_service("slurmdbd")
    job.assert_like(quiet)
    assert ends(job) == [("stopped", 7, 0), ("finished", 20, 0)]
