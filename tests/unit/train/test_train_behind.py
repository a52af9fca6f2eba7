"""Steps that are looked at one behind: the same rows and files, and a step that is not finite changes nothing."""

from __future__ import annotations

import itertools
import math
import signal

import numpy as np
import pytest
import torch
from accelerate.accelerator import Accelerator

from lmbatch.config import ModelConfig
from lmbatch.errors import NonFiniteLossError
from lmbatch.loader import Batch, Step
from lmbatch.model import build_model
from lmbatch.train import train
from lmbatch.train.engine import Engine
from lmbatch.train.figures import Figures
from lmbatch.train.metrics import read_metrics, training_rows
from lmbatch.train.optimizer import build_optimizer
from lmbatch.train.plain_engine import PlainEngine
from lmbatch.train.stop import StopFlag
from support.poison import poison
from support.tiny_corpus import VOCABULARY
from support.tiny_run import (
    TINY_GPT2,
    assert_equal_runs,
    newest_payload,
    run_child,
    saved_steps,
    tiny_config,
    tiny_settings,
    write_config,
)

FUSED = {"fused_optimizer": True}
# Saves at 6, 12, 18 and 20; evaluations at 8 and 16: some steps are waited for, most are not.
RUN = {"compute": FUSED, "save": {"every": 6, "asynchronous": False}}


@pytest.fixture(scope="module")
def behind(store, tmp_path_factory):
    return train(tiny_config(store, tmp_path_factory.mktemp("behind"), **RUN))


@pytest.fixture
def poisoned():
    """``poison`` for one test."""
    kept = {name: getattr(Engine, name) for name in ("begin", "_scaled_loss", "_clip")}
    yield poison
    for name, function in kept.items():
        setattr(Engine, name, function)


def test_rows_and_checkpoints_are_those_of_a_loop_that_waits(store, behind, tmp_path, monkeypatch):
    monkeypatch.setattr(PlainEngine, "defers", False)
    waiting = train(tiny_config(store, tmp_path, **RUN))
    assert_equal_runs(behind.run_dir, waiting.run_dir)
    assert saved_steps(behind.run_dir) == [18, 20]


def test_a_step_is_looked_at_when_the_next_is_under_way_unless_something_is_due(store, tmp_path, monkeypatch):
    order: list[str] = []
    begin, fetch = Engine.begin, Figures.fetch

    def begun(self, step, *, number, stop):
        order.append(f"begin {number + 1}")
        return begin(self, step, number=number, stop=stop)

    def fetched(self):
        order.append("look")
        return fetch(self)

    monkeypatch.setattr(Engine, "begin", begun)
    monkeypatch.setattr(Figures, "fetch", fetched)
    train(tiny_config(store, tmp_path, compute=FUSED, steps=6, save={"every": 4}, evaluate={"batches": 0}))
    assert order == ["begin 1", "begin 2", "look", "begin 3", "look", "begin 4", "look", "look",
                     "begin 5", "begin 6", "look", "look"]  # fmt: skip


@pytest.mark.parametrize("changes", [{"guards": {"nonfinite": "skip"}}, {"guards": {"spike_factor": 3.0}}, {}])
def test_guards_that_do_more_than_stop_and_other_optimizers_are_waited_for(store, tmp_path, changes):
    compute = FUSED if changes else {}
    assert not engine_of(tiny_config(store, tmp_path, compute=compute, **changes)).defers
    assert engine_of(tiny_config(store, tmp_path, compute=FUSED, guards={"max_skipped": 2})).defers


def engine_of(config):
    model = build_model(ModelConfig.model_validate(TINY_GPT2), vocab_size=len(VOCABULARY), sequence_length=32,
                        eod_id=0, seed=1)  # fmt: skip
    optimizer = build_optimizer(model, config.optimizer, fused=config.compute.fused_optimizer)
    return PlainEngine(config, Accelerator(cpu=True), model, optimizer, None)


def step_of(number: int) -> Step:
    rng = np.random.default_rng(number)
    first, tokens = 8 * number, rng.integers(1, len(VOCABULARY), (2, 4, 33))
    return Step(first, tuple(Batch(first + 4 * i, tuple(range(first + 4 * i, first + 4 * i + 4)), tokens[i])
                             for i in range(2)))  # fmt: skip


def state_of(engine) -> dict[str, torch.Tensor]:
    weights = dict(engine.plain_model.named_parameters())
    state = engine._plain_optimizer.state
    moments = {f"{name} {key}": value for name, p in weights.items() for key, value in state[p].items()}
    return {name: value.detach().clone() for name, value in (weights | moments).items()}


@pytest.mark.parametrize("kind", ["embedding", "gradient"])
@pytest.mark.parametrize("bad", [1, 3])
def test_nothing_is_applied_from_a_step_on_that_is_not_finite(store, tmp_path, poisoned, kind, bad):
    """Nobody looks at any step here: it is the device that leaves the updates out."""
    poisoned({bad: kind})
    engine, states, figures = engine_of(tiny_config(store, tmp_path, compute=FUSED)), [], []
    for number in range(6):
        figures.append(engine.begin(step_of(number), number=number, stop=StopFlag()))
        engine.apply(0.01)
        states.append(state_of(engine))
    moved = [any(not torch.equal(a[key], b[key]) for key in a) for a, b in itertools.pairwise(states)]
    assert moved == [number < bad - 1 for number in range(1, 6)]
    assert states[-1]["transformer.h.0.ln_1.weight step"].item() == bad - 1
    found = [figure.fetch() for figure in figures]
    assert [math.isfinite(one.loss + one.grad_norm) for one in found] == [n != bad - 1 for n in range(6)]


@pytest.mark.parametrize("kind", ["embedding", "gradient"])
def test_the_run_stops_and_says_which_step_it_was(store, behind, tmp_path, poisoned, kind):
    """Step 9 is bad; when that is seen, step 10 has already begun."""
    config = tiny_config(store, tmp_path, **RUN)
    kept = Engine.begin
    poisoned({9: kind})
    with pytest.raises(NonFiniteLossError, match="step 9: .*nothing was changed or saved") as caught:
        train(config)
    assert "samples [64, 72)" in str(caught.value)
    assert ("suspect: [64, 65, 66, 67]" in str(caught.value)) == (kind == "embedding")
    rows = training_rows(read_metrics(tmp_path / "tiny"))
    assert [row["step"] for row in rows] == list(range(1, 9))
    Engine.begin = kept
    poisoned({})
    train(config)
    assert_equal_runs(tmp_path / "tiny", behind.run_dir)


@pytest.mark.parametrize("step", [7, 11])
def test_a_stop_is_honoured_one_step_later_at_most_and_nothing_is_lost(store, behind, tmp_path, step):
    """Asked for while the row of a step is written, when the next one may have begun."""
    path = write_config(tmp_path / "tiny.yaml", tiny_settings(store, tmp_path, **RUN))
    assert run_child(path, step=step, number=signal.SIGTERM) == 75
    rows = training_rows(read_metrics(tmp_path / "tiny"))
    assert saved_steps(tmp_path / "tiny")[-1] == len(rows) == step + 1
    assert [row["step"] for row in rows] == list(range(1, step + 2))
    train(tiny_config(store, tmp_path, **RUN))
    assert_equal_runs(tmp_path / "tiny", behind.run_dir)
    assert newest_payload(tmp_path / "tiny")


def test_a_power_cut_loses_rows_only_after_the_newest_checkpoint(store, behind, tmp_path):
    path = write_config(tmp_path / "tiny.yaml", tiny_settings(store, tmp_path, **RUN))
    assert run_child(path, step=8, number=signal.SIGKILL) == -signal.SIGKILL
    assert len(training_rows(read_metrics(tmp_path / "tiny"))) == 8
    assert saved_steps(tmp_path / "tiny") == [6]
    train(tiny_config(store, tmp_path, **RUN))
    assert_equal_runs(tmp_path / "tiny", behind.run_dir)
