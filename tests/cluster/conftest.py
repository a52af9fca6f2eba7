"""A small corpus that commands preprocess on the virtual Slurm, and training jobs on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.slurm_site import Site, SlurmCluster, used_site, wait_until, write_corpus_and_quiet_store
from support.slurm_train import DETERMINED, STEPS, NewJob, TrainingJob
from support.tiny_corpus import write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files, a tokenizer, and the store ``quiet`` that an undisturbed process made of them."""
    return write_corpus_and_quiet_store(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def site(slurm_cluster: SlurmCluster, corpus: Path, tmp_path: Path) -> Iterator[Site]:
    yield from used_site(Site(slurm_cluster, corpus, tmp_path))


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
