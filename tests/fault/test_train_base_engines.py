"""Runs that begin with somebody else's weights, under ZeRO and in several processes."""

from __future__ import annotations

import shutil

import pytest

from lmbatch.train.attempts import read_attempts
from lmbatch.train.metrics import read_metrics, training_rows
from support.base_folder import write_base
from support.rank_server import RankServer, logs
from support.tiny_corpus import write_corpus
from support.tiny_run import tiny_settings, write_config

pytestmark = pytest.mark.slow

ZERO3 = {"name": "deepspeed", "zero_stage": 3, "bucket_elements": 1000}


@pytest.fixture(scope="module")
def server():
    with RankServer() as started:
        yield started


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("tiny-store"))


def losses(run_dir) -> list[float]:
    return [row["loss"] for row in training_rows(read_metrics(run_dir))]


def test_under_zero_the_weights_arrive_whole_and_a_resume_needs_no_folder(server, store, tmp_path):
    """Two processes of ZeRO 3 begin like one plain one, and go on after the folder is gone."""
    base = write_base(tmp_path / "base")
    found = {}
    for name, world, engine in (("alone", 1, {"name": "plain"}), ("zero3", 2, ZERO3)):
        folder = tmp_path / name
        folder.mkdir()
        settings = tiny_settings(
            store, folder, engine=engine, batch={"micro": 2}, steps=6, save={"every": 3}, evaluate={"batches": 0}
        )
        settings["model"] = {"type": "bloom", "base": str(base)}
        config = write_config(folder / "tiny.yaml", settings)
        assert set(server.run(config, world=world)) == {0}, logs(config)
        found[name] = losses(folder / "tiny")
    assert found["zero3"] == pytest.approx(found["alone"], rel=0, abs=5e-6)

    folder = tmp_path / "zero3"
    shutil.rmtree(folder / "tiny" / "checkpoints" / "step-00000006")
    shutil.rmtree(base)
    assert set(server.run(folder / "tiny.yaml", world=2)) == {0}, logs(folder / "tiny.yaml")
    assert read_attempts(folder / "tiny")[-1].resumed_from == 3
    assert losses(folder / "tiny") == found["zero3"]
