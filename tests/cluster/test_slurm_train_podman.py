"""Training through podman in the real image on two nodes of a real Slurm.

Its containers are no children of Slurm's: what matters is that notice reaches them, and that none outlives its job.
"""

from __future__ import annotations

import subprocess

import pytest

from lmbatch.checkpoint import is_locked, read_holder
from support.container_image import TestImage, container_image
from support.slurm_site import wait_until
from support.slurm_train import HELD, NewJob, TrainingJob

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first one to ask builds the image


@pytest.fixture(scope="module")
def image() -> TestImage:
    return container_image("train")


def left_of(job: TrainingJob, image: TestImage) -> list[str]:
    """Containers of the job in any state, and processes with its config, which those of the nodes are too."""
    asked = ("ps", "--all", "--filter", f"label=lmbatch.job={job.id}", "--format", "{{.Names}} {{.Status}}")
    lines = subprocess.run(["ps", "-eo", "stat,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    config = str(job.base / f"{job.name}.yaml")
    return [*image.podman(*asked).stdout.splitlines(), *(x for x in lines if config in x and not x.startswith("Z"))]


def wait_gone(job: TrainingJob, image: TestImage) -> None:
    wait_until(lambda: job.state() == "", what="for the job to leave the queue")
    wait_until(lambda: left_of(job, image) == [], what=f"for the end of what runs; {job.text()[-2000:]}")
    # A killed process whose thread waits for a busy disk is a zombie that still holds its files.
    wait_until(lambda: not is_locked(job.run), what=f"for the run to be free; {read_holder(job.run)}")


def test_podman(quiet: TrainingJob, new_job: NewJob, image: TestImage) -> None:
    """Preempted and requeued, cancelled, its step killed by Slurm: it goes on each time, and leaves nothing behind."""
    job = new_job("podman")
    job.container = {"runtime": "podman", "image": image.tag, "mounts": [f"{HELD}:{HELD}"]}
    job.more_environment = {name: value for name, value in image.environment.items() if name.startswith("CONTAINERS_")}
    job.submit("--partition=scav", hold="step-4,step-9")
    job.wait_held(0, "step-4")
    job.preempt()
    job.wait_held(1, "step-9")
    assert f"job {job.id}, attempt 0: exit code 75, after notice" in job.text()
    # What the first attempt may have left was removed before the second one began.
    assert len([line for line in left_of(job, image) if line.startswith("lmbatch-")]) == 2, left_of(job, image)
    quiet.cluster.run("scancel", job.id)
    wait_gone(job, image)

    job.submit(hold="step-13")
    job.wait_held(0, "step-13")
    quiet.cluster.run("scancel", "--signal=KILL", f"{job.id}.0")
    wait_gone(job, image)
    assert "exit code 137" in job.text()

    job.submit()
    job.wait_over()
    job.assert_like(quiet)
    assert [(attempt.why, attempt.steps_lost) for attempt in job.status().attempts] == \
        [("stopped", 0), ("stopped", 0), ("died without notice", 3), ("finished", 0)]  # fmt: skip
