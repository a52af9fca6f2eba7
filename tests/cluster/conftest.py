"""A real Slurm for the session, and a small corpus that commands preprocess on it."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.drive import preprocess_here
from support.slurm_site import ARRAY, NODES, Site, SlurmCluster, config_of, wait_until
from support.slurm_train import DETERMINED, STEPS, NewJob, TrainingJob
from support.tiny_corpus import write_corpus
from support.wudao import write_files, write_tokenizer

PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "slurm_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker("slurm")


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[SlurmCluster]:
    """A cluster of two nodes with two cores each; on a machine without Slurm its tests say what is missing."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        pytest.skip(f"this machine has no {', '.join(missing)}: run cluster/install.sh as root")
    folder = Path(tempfile.mkdtemp(prefix="lmbatch-slurm-", dir="/tmp"))  # Unix sockets want a short path
    cluster = SlurmCluster(folder)
    cluster.up(nodes=NODES, cpus=2, max_array_size=ARRAY)
    yield cluster
    cluster.down(wipe=True)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files, a tokenizer, and the store ``quiet`` that an undisturbed process made of them."""
    base = tmp_path_factory.mktemp("corpus")
    write_files(base / "raw", files=2, documents=60)
    write_tokenizer(base / "tok")
    preprocess_here(config_of(base, base, "quiet"))
    return base


@pytest.fixture
def site(slurm_cluster: SlurmCluster, corpus: Path, tmp_path: Path) -> Iterator[Site]:
    site = Site(slurm_cluster, corpus, tmp_path)
    yield site
    for process in site.started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    slurm_cluster.run("scancel", "--quiet", f"--user={os.getuid()}")
    wait_until(lambda: not site.queue(), what="for an empty queue")


@pytest.fixture(scope="session")
def quiet(slurm_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    """A training job that nobody disturbs."""
    base = tmp_path_factory.mktemp("train")
    store = write_corpus(base / "corpus")
    job = TrainingJob(slurm_cluster, base, store, "quiet").submit()
    job.wait_over()
    assert job.status().step == STEPS, job.text()
    return job


@pytest.fixture(scope="session")
def alone(quiet: TrainingJob) -> TrainingJob:
    """The same on one process without Slurm, of a config whose numbers do not depend on how many there are."""
    return TrainingJob(quiet.cluster, quiet.base, quiet.store, "alone").train_here(*DETERMINED)


@pytest.fixture
def new_job(quiet: TrainingJob) -> Iterator[NewJob]:
    yield lambda name: TrainingJob(quiet.cluster, quiet.base, quiet.store, name)
    quiet.cluster.run("scancel", "--quiet", f"--user={os.getuid()}")
    wait_until(lambda: not quiet.cluster.run("squeue", "-h").stdout.split(), what="for an empty queue")
