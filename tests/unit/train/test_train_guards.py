"""Runs with bad steps in them: what each policy does, and that a resume does the same."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from click.testing import CliRunner

from lmbatch.cli import cli
from lmbatch.config import GuardsConfig
from lmbatch.errors import LossSpikeError, NonFiniteLossError, ResumeError
from lmbatch.report import compare_runs, run_status
from lmbatch.train import train
from lmbatch.train.attempts import read_attempts
from lmbatch.train.engine import Engine
from lmbatch.train.guards import Guard
from lmbatch.train.metrics import read_metrics, reproducible, training_rows
from lmbatch.train.recorder import Recorder
from lmbatch.train.sentry import Sentry
from lmbatch.train.stop import StopFlag
from support.poison import poison
from support.scaled import made_up, scaled
from support.tiny_run import assert_equal_runs, call_after_step, newest_payload, saved_steps, tiny_config

SKIP = {"nonfinite": "skip"}
SPIKES = {"spike_factor": 2, "spike_window": 3, "on_spike": "skip"}


@pytest.fixture
def spoil(monkeypatch):
    """``spoil({step: kind})``: see support/poison.py."""
    for name in ("begin", "_scaled_loss", "_clip"):
        monkeypatch.setattr(Engine, name, getattr(Engine, name))
    monkeypatch.setattr(Recorder, "train", Recorder.train)
    return poison


@pytest.fixture
def applied(monkeypatch):
    """The steps whose update was applied, by their learning rate."""
    rates, original = [], Engine.apply
    monkeypatch.setattr(Engine, "apply", lambda self, lr: (rates.append(lr), original(self, lr))[1])
    return rates


def rows_of(folder):
    return training_rows(read_metrics(folder))


def interrupted(config, *steps) -> None:
    """Train until a stop after each of the steps, then to the end."""
    for step in steps:
        stop = StopFlag()
        call_after_step(step, lambda stop=stop: stop.request("SIGTERM"))
        assert train(config, stop).step == step
    assert train(config).exit_code == 0


# ── not finite ───────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kind", ["embedding", "gradient"])
def test_a_step_that_is_not_finite_is_left_out_and_counts(store, tmp_path, spoil, applied, caplog, kind):
    spoil({4: kind})
    result = train(tiny_config(store, tmp_path, steps=6, guards=SKIP))
    rows = rows_of(result.run_dir)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["samples"][0] for row in rows] == [0, 8, 16, 24, 32, 40]
    assert [row["skipped"] is not None for row in rows] == [False, False, False, True, False, False]
    assert applied == [row["lr"] for row in rows if row["step"] != 4]
    assert rows[3]["grad_norm"] is None
    assert (rows[3]["loss"] is None) == (kind == "embedding")
    assert rows[3]["skipped"].startswith("the loss is nan" if kind == "embedding" else "the gradient norm is nan")
    assert math.isfinite(result.loss)
    steps = json.loads(newest_payload(result.run_dir)["optimizer.json"])
    assert "nan" not in json.dumps(steps).lower()
    assert "step 4: " in caplog.text
    assert "its update is left out" in caplog.text


def test_the_documents_of_the_spoilt_micro_batch_are_named(store, tmp_path, spoil, caplog):
    spoil({3: "embedding"})
    train(tiny_config(store, tmp_path, steps=4, guards=SKIP))
    assert "samples [16, 24), of these suspect: [16, 17, 18, 19]; their documents:" in caplog.text
    assert re.search(r"tiny\.json at .* \(id doc-", caplog.text)


def test_a_step_that_is_left_out_changes_neither_weights_nor_moments(store, tmp_path, spoil):
    spoil({3: "embedding", 4: "gradient"})
    changes = {
        "guards": SKIP,
        "save": {"every": 2},
        "evaluate": {"batches": 0},
        "schedule": {"name": "constant", "warmup_steps": 0},
    }
    stops = {step: StopFlag() for step in (2, 4)}
    config = tiny_config(store, tmp_path, **changes)
    payloads = {}
    for step, stop in stops.items():
        call_after_step(step, lambda stop=stop: stop.request("SIGTERM"))
        folder = train(config, stop).run_dir
        assert saved_steps(folder)[-1] == step
        payloads[step] = newest_payload(folder)
    assert payloads[4] == payloads[2]


def test_the_policy_is_to_stop_unless_the_config_says_otherwise(store, tmp_path, spoil):
    spoil({3: "embedding"})
    with pytest.raises(NonFiniteLossError, match=r"step 3: the loss is nan; nothing was changed") as caught:
        train(tiny_config(store, tmp_path, guards={"spike_factor": 2}))
    assert caught.value.exit_code == 1
    assert "--set guards.nonfinite=skip --set run.accept_changes=true" in caught.value.remedy
    assert saved_steps(tmp_path / "tiny") == []
    changed = {"guards": SKIP, "steps": 4}
    train(tiny_config(store, tmp_path, **changed))  # nothing was saved, so there is nothing to accept
    assert run_status(tmp_path / "tiny").steps_skipped == 1


def test_a_policy_that_changes_on_the_way_has_to_be_accepted(store, tmp_path):
    train(tiny_config(store, tmp_path, steps=2))
    with pytest.raises(ResumeError, match="guards: null →"):
        train(tiny_config(store, tmp_path, steps=2, guards=SKIP))


def test_too_many_in_a_row_stop_the_run_before_a_checkpoint_is_made_of_them(store, tmp_path, spoil):
    spoil(dict.fromkeys((2, 3, 5, 6, 7), "gradient"))
    guards = {**SKIP, "max_skipped": 2}
    with pytest.raises(
        NonFiniteLossError, match=r"step 7: .* and the updates of 2 steps before it were left out"
    ) as caught:
        train(tiny_config(store, tmp_path, guards=guards, save={"every": 1}))
    assert "guards.nonfinite=skip" not in caught.value.remedy
    folder = tmp_path / "tiny"
    assert saved_steps(folder) == [1, 4]  # and not 5 and 6, which may be the first of many
    (attempt,) = read_attempts(folder)
    assert (attempt.why, attempt.last_step, attempt.last_saved_step, attempt.steps_lost) == ("failed", 6, 4, 2)


def test_a_checkpoint_that_had_to_wait_is_made_after_the_next_update(store, tmp_path, spoil):
    spoil({5: "gradient", 20: "gradient"})
    seen = []
    call_after_step(11, lambda: seen.extend(saved_steps(tmp_path / "tiny")))
    train(tiny_config(store, tmp_path, guards=SKIP, save={"asynchronous": False}))  # what is saved is there at once
    assert seen == [6, 10]
    assert saved_steps(tmp_path / "tiny") == [15, 20]  # the last one is made in any case


def test_weights_that_are_not_finite_are_not_waited_for(store, tmp_path, spoil, applied):
    spoil({4: "weights"})
    with pytest.raises(NonFiniteLossError, match="step 4: .*for the weights themselves are not finite"):
        train(tiny_config(store, tmp_path, guards=SKIP))
    assert len(applied) == 3


def test_weights_that_are_not_finite_are_not_saved(store, tmp_path, monkeypatch):
    original, taken = Engine.apply, []

    def apply(self, lr):
        original(self, lr)
        taken.append(lr)
        if len(taken) == 4:
            next(self.plain_model.parameters()).data.view(-1)[0] = math.inf

    monkeypatch.setattr(Engine, "apply", apply)
    with pytest.raises(NonFiniteLossError, match="after step 4 the weights are not finite; they are not saved"):
        train(tiny_config(store, tmp_path, save={"every": 2}))
    assert saved_steps(tmp_path / "tiny") == [2]


def test_a_validation_loss_that_is_not_finite_ends_the_run_with_a_reason(store, tmp_path, monkeypatch):
    monkeypatch.setattr(Engine, "summed_loss", lambda self, batch: math.nan)
    with pytest.raises(NonFiniteLossError, match="after step 8 the validation loss is nan"):
        train(tiny_config(store, tmp_path))


# ── spikes ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("kind", "factor"), [("spike", "spike_factor"), ("steep", "grad_spike_factor")])
@pytest.mark.parametrize("action", ["warn", "skip", "stop"])
def test_a_spike_is_dealt_with_as_the_policy_says(store, tmp_path, spoil, applied, caplog, kind, factor, action):
    spoil({6: kind})
    guards = {factor: 3, "spike_window": 4, "on_spike": action}
    config = tiny_config(store, tmp_path, steps=8, guards=guards)
    what = "the loss is" if kind == "spike" else "the gradient norm is"
    if action == "stop":
        with pytest.raises(LossSpikeError, match=f"step 6: {what} .*; nothing was changed or saved") as caught:
            train(config)
        assert caught.value.exit_code == 1
        assert (len(applied), saved_steps(tmp_path / "tiny")) == (5, [5])
        return
    rows = rows_of(train(config).run_dir)
    key, other = ("spike", "skipped") if action == "warn" else ("skipped", "spike")
    assert [row["step"] for row in rows if row[key]] == [6]
    assert [row["step"] for row in rows if row[other]] == []
    assert rows[5][key].startswith(what)
    assert math.isfinite(rows[5]["loss"])
    assert len(applied) == (8 if action == "warn" else 7)
    suspect = "[40, 41, 42, 43]" if kind == "spike" else "all"
    assert f"samples [40, 48), of these suspect: {suspect}; their documents:" in caplog.text


def test_guards_that_find_nothing_do_not_change_a_run(store, straight, tmp_path):
    rows = rows_of(train(tiny_config(store, tmp_path, guards=SPIKES)).run_dir)
    assert reproducible(rows) == reproducible(rows_of(straight.run_dir))
    assert newest_payload(tmp_path / "tiny") == newest_payload(straight.run_dir)


# In each half a spike, and one in reach of the window only across the interruption; a loss that is NaN at the seam.
BAD = {7: "spike", 10: "embedding", 12: "spike", 18: "steep"}
BOTH = {**SKIP, **SPIKES, "grad_spike_factor": 3, "spike_window": 6}


@pytest.mark.parametrize("stops", [(10,), (11,), (6, 12)])
def test_20_steps_are_10_and_10_with_a_spike_in_each_half(store, tmp_path, spoil, stops):
    spoil(BAD)
    train(tiny_config(store, tmp_path / "straight", guards=BOTH))
    assert [row["step"] for row in rows_of(tmp_path / "straight" / "tiny") if row["skipped"]] == list(BAD)
    interrupted(tiny_config(store, tmp_path / "cut", guards=BOTH), *stops)
    assert_equal_runs(tmp_path / "cut" / "tiny", tmp_path / "straight" / "tiny")
    assert compare_runs(tmp_path / "cut" / "tiny", tmp_path / "straight" / "tiny").equal


def test_rows_of_steps_that_are_taken_again_do_not_count(store, tmp_path, spoil, monkeypatch):
    """A death after step 13, whose newest checkpoint is that of step 11: 12 and 13 are in metrics.jsonl already."""
    spoil(BAD)
    train(tiny_config(store, tmp_path / "straight", guards=BOTH))
    config = tiny_config(store, tmp_path / "cut", guards=BOTH)
    lives = ["second", "first"]

    def die():
        if lives.pop() == "first":
            raise OSError("the node is gone")

    call_after_step(13, die)
    with pytest.raises(OSError, match="gone"):
        train(config)
    folder = tmp_path / "cut" / "tiny"
    assert (saved_steps(folder), rows_of(folder)[-1]["step"]) == ([5, 11], 13)
    assert train(config).resumed_from == 11
    assert_equal_runs(folder, tmp_path / "straight" / "tiny")


def test_in_a_row_goes_on_over_an_interruption(store, tmp_path, spoil):
    spoil(dict.fromkeys((6, 7, 8), "gradient"))
    config = tiny_config(store, tmp_path, guards={**SKIP, "max_skipped": 2})
    stop = StopFlag()
    call_after_step(6, lambda: stop.request("SIGTERM"))
    assert train(config, stop).step == 6
    with pytest.raises(NonFiniteLossError, match=r"step 8: .* and the updates of 2 steps before it were left out"):
        train(config)


def test_the_very_first_steps_may_be_left_out_and_resumed(store, tmp_path, spoil):
    spoil({1: "embedding", 2: "gradient"})
    train(tiny_config(store, tmp_path / "straight", guards=SKIP))
    interrupted(tiny_config(store, tmp_path / "cut", guards=SKIP), 1, 2)
    assert_equal_runs(tmp_path / "cut" / "tiny", tmp_path / "straight" / "tiny")


def test_the_learning_rate_in_a_checkpoint_is_that_of_the_step_left_out(store, tmp_path, spoil):
    spoil({6: "gradient"})
    for name, steps in (("straight", ()), ("cut", (5,))):
        interrupted(tiny_config(store, tmp_path / name, guards=SKIP, steps=6), *steps)
    assert_equal_runs(tmp_path / "cut" / "tiny", tmp_path / "straight" / "tiny")


# ── what people see ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_status_and_compare_know_of_steps_that_were_left_out(store, tmp_path, spoil, straight):
    spoil({4: "embedding", 20: "embedding"})
    for name in ("one", "two"):
        train(tiny_config(store, tmp_path, run={"name": name}, guards=SKIP))
    facts = json.loads(CliRunner().invoke(cli, ["status", str(tmp_path / "one"), "--json"]).stdout)
    assert (facts["steps_skipped"], facts["last_skipped"], facts["last_skipped_why"]) == (2, 20, "the loss is nan")
    assert facts["loss"] == rows_of(tmp_path / "one")[-2]["loss"]
    text = CliRunner().invoke(cli, ["status", str(tmp_path / "one")]).stdout
    assert "2 steps skipped by the guards, the last one 20: the loss is nan" in text
    assert compare_runs(tmp_path / "one", tmp_path / "two").equal
    other = compare_runs(tmp_path / "one", straight.run_dir)
    assert not other.equal
    assert other.first_difference.startswith("step 4: ")
    assert run_status(straight.run_dir).steps_skipped == 0
    assert "skipped" not in CliRunner().invoke(cli, ["status", str(straight.run_dir)]).stdout


def test_a_run_of_before_the_guards_compares_equal(straight, tmp_path):
    rows = [json.loads(line) for line in (straight.run_dir / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("skipped", None)
        row.pop("spike", None)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert compare_runs(straight.run_dir, tmp_path).equal


# ── the loss scaler of fp16 ──────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def scaled_engine(store, tmp_path):
    with scaled(store, tmp_path) as engine:
        yield engine


@pytest.mark.parametrize("kind", ["embedding", "spike"])
def test_the_loss_scaler_forgets_a_step_that_is_left_out(scaled_engine, spoil, kind):
    spoil({2: kind})
    weights, scales = [], []
    for number in range(3):
        found = scaled_engine.gradients(made_up(number), number=number, stop=StopFlag())
        assert scaled_engine.tolerates_overflow
        (scaled_engine.skip if number == 1 else scaled_engine.apply)(0.01)
        weights.append(next(scaled_engine.plain_model.parameters()).detach().clone())
        scales.append(scaled_engine.scaler.state_dict())
    assert math.isfinite(found.loss)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert [state["scale"] for state in scales] == [2.0**10] * 3
    assert [state["_growth_tracker"] for state in scales] == [1, 1, 2]


def test_an_overflow_is_the_loss_scalers_affair_and_no_guards(scaled_engine, spoil):
    spoil({1: "gradient"})
    sentry = Sentry(Guard(GuardsConfig(nonfinite="skip")), scaled_engine, lambda samples: [], 4)
    found = scaled_engine.gradients(made_up(0), number=0, stop=StopFlag())
    assert not math.isfinite(found.grad_norm)
    assert sentry.examine(made_up(0), 1, found) is None
    before = next(scaled_engine.plain_model.parameters()).detach().clone()
    scaled_engine.apply(0.01)
    assert torch.equal(before, next(scaled_engine.plain_model.parameters()))
    assert scaled_engine.scaler.get_scale() == 2.0**9
