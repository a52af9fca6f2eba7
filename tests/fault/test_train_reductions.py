"""What two processes send each other in a step: how often, and in which precision."""

from __future__ import annotations

import json

import pytest

from lmbatch.train.metrics import read_metrics, training_rows
from support.rank_server import RankServer, logs
from support.tiny_corpus import write_corpus
from support.tiny_run import tiny_settings, write_config

pytestmark = pytest.mark.slow

STEPS = 4
ZERO = {
    f"zero{stage}": {"engine": {"name": "deepspeed", "zero_stage": stage, "bucket_elements": 1000}}
    for stage in (1, 2, 3)
}


@pytest.fixture(scope="module")
def server():
    with RankServer() as started:
        yield started


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("tiny-store"))


def reductions(server, store, folder, **changes):
    """For each step the dtypes and sizes of what was reduced in it, as rank 0 saw it."""
    note = folder / "sent.jsonl"
    settings = tiny_settings(
        store, folder, steps=STEPS, save={"every": 100}, evaluate={"batches": 0}, run={"hang_seconds": 60.0}, **changes
    )
    config = write_config(folder / "tiny.yaml", settings)
    assert server.run(config, world=2, note_reductions=[0, str(note)]) == [0, 0], logs(config)
    assert len(training_rows(read_metrics(folder / "tiny"))) == STEPS
    return [json.loads(line) for line in note.read_text().splitlines()]


@pytest.mark.parametrize("micro", [4, 1], ids=["one micro-batch", "four micro-batches"])
def test_gradients_are_reduced_once_a_step_however_many_micro_batches_it_has(server, store, tmp_path, micro):
    """One bucket of gradients and one row of figures; the first step's bucket is laid out anew beforehand."""
    sent = reductions(server, store, tmp_path, batch={"size": 8, "micro": micro})
    assert [len(step) for step in sent] == [2] * STEPS
    gradients, figures = zip(*sent, strict=True)
    assert {kind for kind, _ in gradients} == {"torch.float32"}
    assert len({size for _, size in gradients}) == 1
    assert gradients[0][1] > 10_000
    assert set(map(tuple, figures)) == {("torch.float64", 7)}


def test_bf16_reduces_gradients_in_fp32(server, store, tmp_path):
    sent = reductions(server, store, tmp_path, precision="bf16")
    assert {kind for step in sent for kind, size in step if size > 1000} == {"torch.float32"}


@pytest.mark.parametrize("stage", ZERO)
def test_bf16_under_zero_reduces_gradients_in_fp32(server, store, tmp_path, stage):
    sent = reductions(server, store, tmp_path, precision="bf16", **ZERO[stage])
    kinds = {kind for step in sent for kind, size in step if size > 16}
    assert kinds == {"torch.float32"}
