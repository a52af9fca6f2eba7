"""Twenty steps are ten and ten: all that a checkpoint holds, whatever a run carries from one step to the next."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lmbatch.checkpoint import Checkpoint, Checkpoints
from lmbatch.store import open_store
from lmbatch.train import train
from lmbatch.train.engine import Engine
from lmbatch.train.metrics import read_metrics, training_rows
from lmbatch.train.recorder import Recorder
from lmbatch.train.stop import StopFlag
from support.poison import poison
from support.scaled import made_up, scaled
from support.tiny_corpus import write_corpus
from support.tiny_run import call_after_step, newest_payload, tiny_config

SPIKES = {"guards": {"spike_factor": 2, "spike_window": 3, "on_spike": "skip"}, "steps": 10}


@pytest.fixture(autouse=True)
def _as_they_were(monkeypatch):
    monkeypatch.setattr(Recorder, "train", Recorder.train)
    for name in ("gradients", "_scaled_loss", "_clip"):
        monkeypatch.setattr(Engine, name, getattr(Engine, name))


def newest(run_dir: Path) -> Checkpoint:
    found, _ = Checkpoints(open_store(str(run_dir))).newest_valid()
    assert found is not None
    return found


def in_two_parts(config, step: int, between=lambda run_dir: None) -> Path:
    stop = StopFlag()
    call_after_step(step, lambda: stop.request("SIGTERM"))
    run_dir = train(config, stop).run_dir
    assert newest(run_dir).step == step
    between(run_dir)
    assert train(config).resumed_from == step
    return run_dir


@pytest.mark.parametrize("length", [None, 20], ids=["packed", "examples of unequal length"])
def test_every_file_and_every_fact_of_the_last_checkpoint_is_the_same(tmp_path, length):
    """Dropout is on. Weights, optimizer, all random generators, the loader's place, samples and tokens."""
    store = write_corpus(tmp_path / "store", length=length)
    config = {name: tiny_config(store, tmp_path / name, data={"sequence_length": 24}) for name in ("one", "two")}
    one, two = newest(train(config["one"]).run_dir), newest(in_two_parts(config["two"], 10))
    names = sorted(path.name for path in one.folder.iterdir())
    assert {"model.safetensors", "optimizer.safetensors", "rng.json", "rng.safetensors", "extra.json"} <= set(names)
    assert names == sorted(path.name for path in two.folder.iterdir())
    assert [name for name in names if (one.folder / name).read_bytes() != (two.folder / name).read_bytes()] == []
    assert one.facts == two.facts
    assert (one.facts.samples_consumed, one.facts.loader["samples_consumed"]) == (160, 160)
    tokens = sum(row["tokens"] for row in training_rows(read_metrics(two.folder.parents[2])))
    assert one.facts.tokens_consumed == tokens
    assert (tokens < 160 * 24) == (length is not None)


def test_a_loss_scaler_goes_on_where_it_was(store, tmp_path):
    """Its scale and the good steps that it has counted, through an overflow and a doubling."""
    poison({2: "gradient"})

    def steps(engine, numbers) -> None:
        for number in numbers:
            engine.gradients(made_up(number), number=number, stop=StopFlag())
            engine.apply(0.01)

    with scaled(store, tmp_path / "one") as whole:
        steps(whole, range(8))
    (tmp_path / "saved").mkdir()
    with scaled(store, tmp_path / "two") as first:
        steps(first, range(4))
        first._write(tmp_path / "saved")
        assert (first.scaler.get_scale(), first.scaler.state_dict()["_growth_tracker"]) == (2.0**9, 2)
    with scaled(store, tmp_path / "two", scale=8.0, resume=tmp_path / "saved") as second:
        assert second.scaler.state_dict() == first.scaler.state_dict()
        steps(second, range(4, 8))
    assert second.scaler.state_dict() == whole.scaler.state_dict()
    assert second.scaler.get_scale() == 2.0**11
    for one, other in zip(whole.plain_model.parameters(), second.plain_model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_without_the_rows_a_checkpoint_tells_the_guards_of_the_steps_before(store, tmp_path):
    """The disk is lost, the store is not: step 6 is judged by the losses of steps 3 to 5 all the same."""
    poison({6: "spike"})
    whole = train(tiny_config(store, tmp_path / "one", **SPIKES)).run_dir
    parts = in_two_parts(
        tiny_config(store, tmp_path / "two", **SPIKES), 5, lambda run_dir: (run_dir / "metrics.jsonl").unlink()
    )
    assert [row["step"] for row in training_rows(read_metrics(parts)) if row["skipped"]] == [6]
    assert newest_payload(parts) == newest_payload(whole)


def test_guards_that_come_later_and_find_no_rows_say_that_they_know_nothing(store, tmp_path, caplog):
    run_dir = train(tiny_config(store, tmp_path, steps=5)).run_dir
    assert newest(run_dir).facts.guards is None
    (run_dir / "metrics.jsonl").unlink()
    train(tiny_config(store, tmp_path, **SPIKES, run={"accept_changes": True}))
    assert "metrics.jsonl has no row of step 5: the guards know nothing" in caplog.text
