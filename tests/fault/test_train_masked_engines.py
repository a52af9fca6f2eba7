"""Masked runs of several processes: the very masks of one process, its losses, and resumes across engines."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lmbatch.train.attempts import read_attempts
from lmbatch.train.metrics import evaluation_rows, read_metrics, training_rows
from support.masked_corpus import STILL, masked_settings, write_corpus
from support.rank_server import RankServer, logs
from support.tiny_run import saved_steps, write_config

pytestmark = pytest.mark.slow

SHAPES = {
    "alone": (1, {"name": "plain"}),
    "parallel": (2, {"name": "plain"}),
    "zero2": (2, {"name": "deepspeed", "zero_stage": 2}),
    "zero3": (2, {"name": "deepspeed", "zero_stage": 3, "bucket_elements": 1000}),
}
CHANGES = {
    "model": STILL,  # without dropout, whose seed goes by the process
    "batch": {"micro": 2},
    "run": {"hang_seconds": 60.0},
    "steps": 10,
    "evaluate": {"every": 5, "batches": 3},
    "samples": {"prompts": ["the old <mask> speaks."]},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Train in a folder under a shape; gives the run's folder."""
    store = write_corpus(tmp_path_factory.mktemp("masked"))
    with RankServer() as server:

        def start(folder: Path, shape: str) -> Path:
            world, engine = SHAPES[shape]
            config = write_config(folder / "tiny.yaml", masked_settings(store, folder, **CHANGES, engine=engine))
            assert set(server.run(config, world=world)) == {0}, logs(config)
            return folder / "tiny"

        yield start


@pytest.fixture(scope="module")
def alone(run, tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"), "alone")


def assert_same_masks_and_losses(run_dir: Path, straight: Path) -> None:
    rows, expected = read_metrics(run_dir), read_metrics(straight)
    for key in ("step", "samples", "data", "tokens", "lr"):  # data covers what was hidden, and what was shown instead
        assert [row[key] for row in training_rows(rows)] == [row[key] for row in training_rows(expected)]
    assert [row["tokens"] for row in evaluation_rows(rows)] == [row["tokens"] for row in evaluation_rows(expected)]
    for kind in (training_rows, evaluation_rows):
        losses = [row["loss"] for row in kind(expected)]
        assert [row["loss"] for row in kind(rows)] == pytest.approx(losses, rel=0, abs=1e-5)


@pytest.mark.parametrize("shape", ["parallel", "zero2", "zero3"])
def test_several_processes_hide_what_one_hides_and_get_its_losses(run, alone, tmp_path, shape):
    assert_same_masks_and_losses(run(tmp_path, shape), alone)


def test_a_run_goes_on_under_zero_with_the_masks_of_the_straight_one(run, alone, tmp_path):
    shutil.copytree(alone, tmp_path / "tiny", ignore=shutil.ignore_patterns("step-00000010", "lock"))
    assert saved_steps(tmp_path / "tiny") == [5]
    run_dir = run(tmp_path, "zero2")
    assert read_attempts(run_dir)[-1].resumed_from == 5
    assert_same_masks_and_losses(run_dir, alone)
