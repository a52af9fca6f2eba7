"""Training in the real image on two nodes of a real Slurm, disturbed as in test_slurm_train.py.

The curve is compared, bit for bit, with that of a job that nobody disturbed and that ran outside of any container.
"""

from __future__ import annotations

import subprocess

import pytest

from support.container_image import TestImage, container_image
from support.slurm_site import wait_until
from support.slurm_train import HELD, NewJob, TrainingJob

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first one to ask builds the image

ZERO = ("engine.name=deepspeed", "engine.zero_stage=2")
SHARED = {"mounts": [f"{HELD}:{HELD}"]}


@pytest.fixture(scope="module")
def image() -> TestImage:
    return container_image("train")


def ends(job: TrainingJob) -> list[tuple[str | None, int]]:
    return [(attempt.why, attempt.steps_lost) for attempt in job.status().attempts]


def processes_of(job: TrainingJob) -> list[str]:
    """What still runs on this machine, whose processes those of the nodes are, with the job's config."""
    lines = subprocess.run(["ps", "-eo", "stat,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if f"{job.base / job.name}.yaml" in line and not line.startswith("Z")]


def test_charliecloud_zero_2(quiet: TrainingJob, new_job: NewJob, image: TestImage) -> None:
    """One job: preempted, a node switched off, asked by the stop file, given notice of its end, cancelled."""
    outside = new_job("zero-outside").submit(sets=ZERO)
    job = new_job("zero-inside")
    job.container = {"runtime": "charliecloud", "image": str(image.folder()), **SHARED}
    outside.wait_over()
    job.submit("--partition=scav", hold="step-4,step-7,step-9,step-12,step-16", sets=ZERO)
    job.wait_held(0, "step-4")
    job.preempt()
    job.wait_held(1, "step-7")
    quiet.cluster.kill_node(2)
    wait_until(lambda: job.state() == "PENDING", what="for Slurm to notice")
    quiet.cluster.start_node(2)
    job.wait_held(2, "step-9")
    (job.run / "stop").touch()
    job.go_on(2)
    job.wait_held(3, "step-12")
    job.notice()
    job.wait_held(4, "step-16")
    quiet.cluster.run("scancel", job.id)
    wait_until(lambda: job.state() == "", what="for the job to leave the queue")
    assert processes_of(job) == []
    job.submit(sets=ZERO)
    job.wait_over()
    assert "engine deepspeed zero 2, 2 processes" in job.text()
    job.assert_like(outside)
    powerless = ends(job)[1]
    assert powerless[0] in ("failed", "died without notice")
    assert ends(job) == [("stopped", 0), (powerless[0], 2), *[("stopped", 0)] * 3, ("finished", 0)]


def test_a_shm_that_no_node_has_ends_the_job_and_excludes_none(
    quiet: TrainingJob, new_job: NewJob, image: TestImage
) -> None:
    """The check on the host of each node, which sees what the container alone would not tell."""
    job = new_job("no-memory")
    job.container = {"runtime": "charliecloud", "image": str(image.folder()), "shm": "1TiB", **SHARED}
    job.submit(preflight=True)
    job.wait_over()
    for node in quiet.cluster.settings.names:
        assert f"bad node {node}: container: /dev/shm of {node} holds " in job.text()
    assert "container.shm asks for 1048576 MiB" in job.text()
    assert "no other job is submitted" in job.text()
    assert "Submitted batch job" not in job.text()
    assert not job.run.joinpath("attempts.jsonl").exists()
