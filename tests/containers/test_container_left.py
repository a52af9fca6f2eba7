"""Containers of a real podman that somebody's end has left behind, and what removes them."""

from __future__ import annotations

import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lmbatch.config import ContainerSite
from lmbatch.launch.container import cleaning_command, keeper
from support.container_image import TestImage, container_image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first one to ask builds the image

PLAIN = ("--network=host", "--pid=host", "--ipc=host", "--log-driver=none", "--ulimit=host", "--entrypoint=")
LONGEST = 240.0
FILES = 20_000


@pytest.fixture(scope="module")
def image() -> TestImage:
    return container_image("preprocess")


@pytest.fixture
def job(image: TestImage) -> Iterator[str]:
    """A job's number that nobody else has; afterwards none of its containers is there."""
    number = str(secrets.randbelow(10**12))
    yield number
    for line in of_job(image, number):
        image.podman("rm", "--force", "--time", "0", line.split()[0])


def of_job(image: TestImage, job: str) -> list[str]:
    """Name and status of each container of the job."""
    asked = ("ps", "--all", "--filter", f"label=lmbatch.job={job}", "--format", "{{.Names}} {{.Status}}")
    return image.podman(*asked).stdout.splitlines()


def leave_half_removed(image: TestImage, job: str) -> None:
    """A container of attempt 0 whose removal was hit by the SIGTERM that Slurm sends to every process of a step."""
    name, deadline = f"lmbatch-{job}-0-0-0", time.monotonic() + LONGEST
    while f"{name} Removing" not in of_job(image, job):
        assert time.monotonic() < deadline, f"podman was never hit in the middle: {of_job(image, job)}"
        image.podman("rm", "--force", "--time", "0", name)
        image.podman("run", "--detach", *PLAIN, "--name", name, "--label", f"lmbatch.job={job}", image.tag, "sleep",
                     "600")  # fmt: skip
        image.podman("kill", "--signal", "KILL", name)
        written = Path(image.podman("inspect", "--format", "{{.GraphDriver.Data.UpperDir}}", name).stdout.strip())
        for number in range(FILES):  # so many that there is a middle
            (written / str(number)).touch()
        with subprocess.Popen(["podman", "rm", "--force", name], env=image.environment) as removal:
            with suppress(FileNotFoundError):
                while removal.poll() is None and sum(1 for _ in written.iterdir()) >= FILES:
                    time.sleep(0.001)
            removal.send_signal(signal.SIGTERM)


def test_the_next_attempt_removes_what_the_last_one_could_not(image: TestImage, job: str) -> None:
    leave_half_removed(image, job)
    command = ["bash", "-c", keeper(), "lmbatch", "podman", *PLAIN, image.tag, "python", "-c", "raise SystemExit(75)"]
    environ = {**image.environment, "SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": "1", "SLURM_PROCID": "0"}
    assert subprocess.run(command, env=environ, check=False, timeout=LONGEST).returncode == 75
    assert of_job(image, job) == []


def test_the_batch_script_removes_what_a_killed_step_has_left(image: TestImage, job: str) -> None:
    """Also a container that still runs."""
    leave_half_removed(image, job)
    image.podman("run", "--detach", *PLAIN, "--name", f"lmbatch-{job}-0-0-1", "--label", f"lmbatch.job={job}",
                 image.tag, "sleep", "600")  # fmt: skip
    clean = cleaning_command(ContainerSite(runtime="podman", image=image.tag))
    subprocess.run(clean, env={**image.environment, "SLURM_JOB_ID": job}, check=True, timeout=LONGEST)
    assert of_job(image, job) == []
