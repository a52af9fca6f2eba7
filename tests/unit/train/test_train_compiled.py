"""compute.compile: the same run, compiled once for all its steps; what is not compiled stays so."""

from __future__ import annotations

import shutil

import pytest
import torch
from pydantic import ValidationError

from lmbatch.errors import ConfigError
from lmbatch.train import compiled, train
from lmbatch.train.metrics import evaluation_rows, read_metrics, training_rows
from support.masked_corpus import masked_config
from support.masked_corpus import write_corpus as write_masked
from support.tiny_run import tiny_config

ON = {"compute": {"compile": True}}


@pytest.fixture
def counted(monkeypatch):
    """Graphs that were compiled, each with what it was given; they then run as they are."""
    graphs: list[int] = []

    def backend(graph, inputs):
        graphs.append(len(inputs))
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "BACKEND", backend)
    yield graphs
    torch._dynamo.reset()


def losses(run, kind):
    return [row["loss"] for row in kind(read_metrics(run.run_dir))]


@pytest.mark.parametrize("chunk", [0, 50])
def test_a_run_is_compiled_in_its_first_step_and_never_again(store, straight, tmp_path, counted, monkeypatch, chunk):
    """Evaluations, with a smaller last batch, and sample texts lie between the steps."""
    after: list[int] = []
    from lmbatch.train.recorder import Recorder

    original = Recorder.train
    monkeypatch.setattr(Recorder, "train", lambda self, row: after.append(len(counted)) or original(self, row))
    config = tiny_config(
        store, tmp_path, compute={"compile": True, "loss_chunk_tokens": chunk}, steps=20,
        samples={"every": 8, "prompts": ["一二"], "generate": {"max_new_tokens": 3, "temperature": 0}},
    )  # fmt: skip
    found = train(config)
    assert after == [after[0]] * 20
    assert after[0] > 0
    for kind in (training_rows, evaluation_rows):
        assert losses(found, kind) == pytest.approx(losses(straight, kind), rel=0, abs=2e-5)


def test_rows_of_many_widths_are_compiled_a_few_times(tmp_path, counted):
    masked_store = write_masked(tmp_path)
    usual = train(masked_config(masked_store, tmp_path / "usual", steps=8))
    assert not counted
    found = train(masked_config(masked_store, tmp_path / "compiled", steps=8, **ON))
    assert losses(found, training_rows) == pytest.approx(losses(usual, training_rows), rel=0, abs=2e-5)
    assert 0 < len(counted) <= 8


@pytest.mark.slow
def test_torchs_own_compiler_gives_the_same_losses(store, straight, tmp_path):
    torch._dynamo.reset()
    small = {"model": {"config": {"n_layer": 1}}, "steps": 3, "evaluate": {"batches": 0}}
    usual = train(tiny_config(store, tmp_path / "usual", **small))
    found = train(tiny_config(store, tmp_path / "found", **small, **ON))
    assert losses(found, training_rows) == pytest.approx(losses(usual, training_rows), rel=0, abs=2e-5)


def test_no_compiler_is_said(store, tmp_path, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="no C\\+\\+ compiler was found") as caught:
        compiled.compiled(torch.nn.Linear(1, 1), tiny_config(store, tmp_path, **ON))
    assert "g++" in str(caught.value.remedy)


def test_deepspeed_is_refused(store, tmp_path):
    with pytest.raises((ConfigError, ValidationError), match="plain engine"):
        tiny_config(store, tmp_path, engine={"name": "deepspeed"}, **ON)
