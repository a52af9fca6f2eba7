"""Training on corpora that were cut into examples: padding teaches nothing, and a run resumes bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.accelerator import Accelerator
from torch import nn

from lmbatch.config import ModelConfig
from lmbatch.errors import ConfigError
from lmbatch.loader import Batch, Step, batches_digest, open_train_data
from lmbatch.model import build_model
from lmbatch.train import train
from lmbatch.train.engine import Engine
from lmbatch.train.metrics import evaluation_rows, read_metrics, training_rows
from lmbatch.train.optimizer import build_optimizer
from lmbatch.train.plain_engine import PlainEngine
from lmbatch.train.recorder import Recorder
from lmbatch.train.stop import StopFlag
from support.tiny_corpus import VOCABULARY, write_corpus
from support.tiny_run import TINY_GPT2, assert_equal_runs, call_after_step, tiny_config, tiny_settings, write_config

LENGTH = 24
DATA = {"sequence_length": LENGTH - 1}
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def cut_store(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("cut-store"), length=LENGTH)


@pytest.fixture(scope="module")
def cut_run(cut_store, tmp_path_factory):
    return train(tiny_config(cut_store, tmp_path_factory.mktemp("cut"), data=DATA))


def engine_of(config) -> Engine:
    model = build_model(
        ModelConfig.model_validate(TINY_GPT2), vocab_size=len(VOCABULARY), sequence_length=LENGTH - 1, eod_id=0, seed=1
    )
    for module in model.modules():  # the same numbers in training and evaluation
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return PlainEngine(config, Accelerator(cpu=True), model, build_optimizer(model, config.optimizer), None)


ROWS = [[5, 9, 4, 0], [7, 0], [3, 8, 8, 2, 1, 0]]


def padded(rows, pad=0, width=LENGTH) -> Batch:
    tokens = np.full((len(rows), width), pad, np.int64)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
    return Batch(0, tuple(range(len(rows))), tokens, np.array([len(row) for row in rows]))


def plain_loss(engine: Engine, rows) -> float:
    """Mean nats over the targets of rows that are not padded at all, one by one."""
    total = 0.0
    for row in rows:
        with torch.no_grad():
            logits = engine.plain_model(input_ids=torch.tensor([row[:-1]])).logits[0]
        total += nn.functional.cross_entropy(logits, torch.tensor(row[1:]), reduction="sum").item()
    return total / sum(len(row) - 1 for row in rows)


def test_the_loss_is_the_mean_over_real_targets_and_padding_counts_for_nothing(cut_store, tmp_path):
    engine = engine_of(tiny_config(cut_store, tmp_path, data=DATA))
    expected = plain_loss(engine, ROWS)
    results = [
        engine.gradients(Step(0, batches), number=0, stop=StopFlag())
        for batches in (
            (padded(ROWS),),
            (padded(ROWS, pad=6),),
            (padded(ROWS[:2]), Batch(2, (2,), padded(ROWS[2:]).tokens, np.array([6]))),
        )
    ]
    for found in results:
        assert found.loss == pytest.approx(expected, rel=1e-5)
        assert found.tokens == 3 + 1 + 5
        assert found.grad_norm == pytest.approx(results[0].grad_norm, rel=1e-4)
        assert found.data == results[0].data
    assert engine.summed_loss(padded(ROWS)) == pytest.approx(expected * 9, rel=1e-5)
    whole = Batch(0, (0, 1, 2), padded(ROWS).tokens)  # the same rows, were padding counted
    counted = engine.summed_loss(whole) / whole.targets
    assert abs(counted - expected) > 0.01


def test_a_sample_is_told_apart_by_its_length():
    rows = padded([[5, 9, 0, 0]]), padded([[5, 9, 0]])
    assert np.array_equal(rows[0].tokens, rows[1].tokens)
    assert batches_digest([rows[0]]) != batches_digest([rows[1]])


def test_rows_count_real_tokens(cut_run, cut_store, tmp_path):
    rows = training_rows(read_metrics(cut_run.run_dir))
    with open_train_data(tiny_config(cut_store, tmp_path, data=DATA).data, seed=1) as data:
        for row in rows[:3]:
            spans = [span for sample in range(*row["samples"]) for span in data.spans(sample)]
            assert row["tokens"] == sum(span.length - 1 for span in spans) < 8 * (LENGTH - 1)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.3
    assert len(evaluation_rows(read_metrics(cut_run.run_dir))) == 3


@pytest.mark.parametrize("step", [5, 12])
def test_a_stopped_and_resumed_run_is_the_straight_one_bit_for_bit(cut_store, cut_run, tmp_path, monkeypatch, step):
    monkeypatch.setattr(Recorder, "train", Recorder.train)
    config, stop = tiny_config(cut_store, tmp_path, data=DATA), StopFlag()
    call_after_step(step, lambda: stop.request("SIGTERM"))
    assert train(config, stop=stop).exit_code == 75
    assert_equal_runs(train(config).run_dir, cut_run.run_dir)


def test_examples_longer_than_the_model_sees_are_refused_at_the_start(cut_store, tmp_path):
    with pytest.raises(ConfigError, match=r"up to 24 tokens .* data\.sequence_length 22 has 23"):
        train(tiny_config(cut_store, tmp_path, data={"sequence_length": 22}))


def test_two_processes_get_the_numbers_of_one(cut_store, tmp_path):
    still = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    changes = {"data": DATA, "model": {"config": still}, "steps": 4}
    config = write_config(tmp_path / "two.yaml", tiny_settings(cut_store, tmp_path, **changes))
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "lmbatch.train",
    ]  # fmt: skip
    done = subprocess.run([*command, "--config", str(config)], env=environ, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = train(tiny_config(cut_store, tmp_path / "one", **changes))
    pairs = zip(*(training_rows(read_metrics(run)) for run in (tmp_path / "tiny", alone.run_dir)), strict=True)
    for two, one in pairs:
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert (two["tokens"], two.get("data")) == (one["tokens"], one.get("data"))
