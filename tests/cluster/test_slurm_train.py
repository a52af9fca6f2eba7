"""A training job on two nodes of a real Slurm, disturbed in every way that a cluster knows.

Each drill compares its curve and its samples, bit for bit, with those of a job that was left alone.
"""

from __future__ import annotations

import pytest

from support.slurm_site import wait_until
from support.slurm_train import DETERMINED, NewJob, TrainingJob

pytestmark = pytest.mark.slow


def test_two_nodes_train_one_model(quiet: TrainingJob) -> None:
    (attempt,) = quiet.status().attempts
    assert (attempt.world_size, attempt.why, attempt.job_id) == (2, "finished", quiet.id)
    assert "exit code 0" in quiet.text()


def test_notice_at_any_moment_costs_nothing(quiet: TrainingJob, new_job: NewJob) -> None:
    """One job, five attempts that get notice at five places, and a sixth that ends it."""
    places = ("start", "data", "step-2", "evaluation", "save")
    job = new_job("noticed").submit(hold=",".join(places))
    for attempt, place in enumerate(places):
        job.wait_held(attempt, place)
        job.notice()
    job.wait_over(120)
    job.assert_like(quiet)
    status = job.status()
    assert status.steps_lost == 0
    assert [attempt.why for attempt in status.attempts][-1] == "finished"
    assert all(attempt.why == "stopped" and attempt.steps_lost == 0 for attempt in status.attempts[:-1])
    assert [attempt.resumed_from for attempt in status.attempts][-3:] == [3, 8, 11]


def test_a_preempted_job_comes_back_by_itself(quiet: TrainingJob, new_job: NewJob) -> None:
    job = new_job("preempted").submit("--partition=scav", hold="step-6")
    job.wait_held(0, "step-6")
    job.preempt()
    job.wait_over(120)
    job.assert_like(quiet)
    assert [(attempt.why, attempt.steps_lost) for attempt in job.status().attempts] == [("stopped", 0), ("finished", 0)]


def test_a_requeue_by_hand_saves_first(quiet: TrainingJob, new_job: NewJob) -> None:
    job = new_job("by-hand").submit(hold="step-6")
    job.wait_held(0, "step-6")
    assert quiet.cluster.run("scontrol", "requeue", job.id).returncode == 0
    job.wait_over()
    job.assert_like(quiet)
    assert job.status().steps_lost == 0


def test_scancel_saves_and_stays_cancelled(quiet: TrainingJob, new_job: NewJob) -> None:
    job = new_job("cancelled").submit(hold="step-6")
    job.wait_held(0, "step-6")
    quiet.cluster.run("scancel", job.id)
    wait_until(lambda: job.state() == "", what="for the job to leave the queue")
    (attempt,) = job.status().attempts
    assert (attempt.why, attempt.last_saved_step, attempt.steps_lost) == ("stopped", 7, 0)
    job.submit()  # the same command goes on
    job.wait_over()
    job.assert_like(quiet)


def test_another_number_of_nodes_goes_on_with_the_same_samples(
    quiet: TrainingJob, alone: TrainingJob, new_job: NewJob
) -> None:
    job = new_job("smaller").submit(hold="step-6", sets=DETERMINED)
    job.wait_held(0, "step-6")
    quiet.cluster.run("scancel", job.id)
    wait_until(lambda: job.state() == "", what="for the job to leave the queue")
    job.submit(nodes=1, sets=DETERMINED)
    job.wait_over()
    assert [attempt.world_size for attempt in job.status().attempts] == [2, 1]
    job.assert_close_to(alone, 1e-5)


def test_zero_on_two_nodes_goes_on_without_deepspeed_on_one(
    quiet: TrainingJob, alone: TrainingJob, new_job: NewJob
) -> None:
    zero = (*DETERMINED, "engine.name=deepspeed", "engine.zero_stage=3")
    job = new_job("zero").submit("--partition=scav", hold="step-6", sets=zero)
    job.wait_held(0, "step-6")
    job.preempt()
    wait_until(lambda: job.state() == "PENDING", what="for the requeue")
    quiet.cluster.run("scancel", job.id)
    wait_until(lambda: job.state() == "", what="for the job to leave the queue")
    job.submit(nodes=1, sets=DETERMINED)
    job.wait_over()
    first, second = job.status().attempts
    assert (first.world_size, first.why, second.world_size, second.why) == (2, "stopped", 1, "finished"), job.text()
    assert second.resumed_from == first.last_step == 7
    assert job.status().steps_lost == 0
    assert "engine deepspeed zero 3, 2 processes" in job.text()
    job.assert_close_to(alone, 1e-5)


def test_a_node_without_power_costs_what_was_not_saved(quiet: TrainingJob, new_job: NewJob) -> None:
    job = new_job("no-power").submit(hold="step-7")
    job.wait_held(0, "step-7")
    quiet.cluster.kill_node(2)
    wait_until(lambda: job.state() == "PENDING", what="for Slurm to notice")
    quiet.cluster.start_node(2)
    job.wait_over(120)
    job.assert_like(quiet)
    first, second = job.status().attempts
    # The node with the ledger may live long enough to note that its partner is gone.
    assert first.why in ("failed", "died without notice")
    assert (first.steps_lost, second.resumed_from) == (2, 5)


def test_a_killed_process_ends_the_attempt_and_the_same_command_goes_on(quiet: TrainingJob, new_job: NewJob) -> None:
    job = new_job("killed").submit(hold="step-7")
    job.wait_held(0, "step-7")
    quiet.cluster.run("scancel", "--signal=KILL", f"{job.id}.0")
    job.wait_over()
    assert "exit code 137" in job.text()
    job.submit()
    job.wait_over()
    job.assert_like(quiet)
    assert [attempt.steps_lost for attempt in job.status().attempts] == [2, 0]


def test_a_process_that_hangs_is_named_and_the_job_goes_on(quiet: TrainingJob, new_job: NewJob) -> None:
    job = new_job("hanging").submit(hold="hang-7", sets=("run.hang_seconds=4",))
    job.wait_over(120)
    job.assert_like(quiet)
    host = quiet.cluster.settings.names[1]
    assert f"rank 1 on {host} (pid " in job.text()
    assert "hung; the others waited for it" in job.text()
    assert "in stand_still" in job.text()
    first, second = job.status().attempts
    assert (first.why, first.steps_lost, second.resumed_from) == ("died without notice", 2, 5)


def test_a_job_that_gets_nowhere_ends_with_a_reason(new_job: NewJob) -> None:
    job = new_job("stuck").submit(hold="start,start", sets=("run.max_idle_attempts=2",))
    for attempt in range(2):
        job.wait_held(attempt, "start")
        job.notice()
    job.wait_over()
    assert f"job {job.id} has saved no step after 0 in 2 attempts" in job.text()
    assert [attempt.why for attempt in job.status().attempts] == ["stopped", "stopped", "failed"]


def test_a_bad_node_is_named_and_a_new_job_keeps_away_from_it(quiet: TrainingJob, new_job: NewJob) -> None:
    bad, good = quiet.cluster.settings.names[1], quiet.cluster.settings.names[0]
    shrink = ("srun", "--nodes=1", f"--nodelist={bad}", "mount", "-o", "remount,size={size}", "/dev/shm")
    assert quiet.cluster.run(*(part.format(size="1m") for part in shrink)).returncode == 0
    try:
        job = new_job("preflight").submit(f"--nodelist={bad}", nodes=1, preflight=True)
        wait_until(lambda: "Submitted batch job" in job.text(), what="for another job")
        job.id = job.text().rpartition("Submitted batch job ")[2].split()[0]
        job.wait_over()
    finally:
        quiet.cluster.run(*(part.format(size="50%") for part in shrink))
    assert f"bad node {bad}: /dev/shm: " in job.text()
    (attempt,) = job.status().attempts
    assert (attempt.job_id, attempt.why, attempt.host) == (job.id, "finished", good)
