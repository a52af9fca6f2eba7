"""The judgement alone: what is a spike, what is done about it, and that rows say the same as the running process."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lmbatch.config import GuardsConfig, TrainConfig, identity
from lmbatch.config.fingerprint import fingerprint
from lmbatch.train.guards import Guard
from support.tiny_run import tiny_config


def row(loss, norm=1.0, skipped=None):
    return {"loss": loss, "grad_norm": norm, "skipped": skipped}


def guard(rows=(), **settings) -> Guard:
    return Guard.after(GuardsConfig(**settings), rows)


FOUR = [row(loss) for loss in (4.0, 3.0, 9.0, 2.0)]  # their median is 3.5


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan), (2.0, math.inf)])
def test_what_is_not_finite_is_found_whatever_came_before(policy, loss, norm):
    found = guard(nonfinite=policy).judge(loss, norm)
    assert (found.kind, found.action) == ("nonfinite", policy)


def test_an_infinite_norm_is_left_to_the_loss_scaler_and_a_loss_is_not():
    own = guard()
    assert own.judge(2.0, math.inf, scaled=True) is None
    assert own.judge(math.nan, math.inf, scaled=True).why == "the loss is nan"


@pytest.mark.parametrize(("loss", "spike"), [(7.0, False), (7.0001, True)])
def test_a_spike_is_above_a_multiple_of_the_median(loss, spike):
    found = guard(FOUR, spike_factor=2, spike_window=4).judge(loss, 1e9)
    assert (found is not None) == spike
    if spike:
        assert (found.kind, found.action, found.most_loss) == ("spike", "warn", 7.0)
        assert found.why == "the loss is 7.0001, above 7.0000: the median of the last 4 steps is 3.5000"


def test_a_gradient_norm_has_a_factor_of_its_own():
    own = guard([row(3.0, norm) for norm in (1.0, 1.0, 2.0)], grad_spike_factor=3, spike_window=3, on_spike="skip")
    assert own.judge(1e9, 3.0) is None
    found = own.judge(1e9, 3.1)
    assert found.action == "skip"
    assert found.why.startswith("the gradient norm is 3.1000")
    assert found.most_loss == math.inf


def test_nothing_is_a_spike_before_the_window_is_full_or_without_a_factor():
    assert guard(FOUR[:3], spike_factor=2, spike_window=4).judge(1e9, 1e9) is None
    assert guard(FOUR, spike_window=4).judge(1e9, 1e9) is None


def test_the_window_holds_the_last_applied_steps_only():
    left_out = [row(None, None, "the loss is nan"), row(1e6, 1e6, "a spike")]
    by_the_scaler = [row(1e6, None)]
    own = guard([row(1e6), *FOUR, *left_out, *by_the_scaler], spike_factor=2, spike_window=4)
    assert own.judge(7.0, 1.0) is None
    assert own.judge(7.1, 1.0) is not None


def test_so_many_in_a_row_may_be_left_out_and_the_next_one_stops():
    settings = {"nonfinite": "skip", "max_skipped": 2}
    bad = row(None, None, "the loss is nan")
    assert guard([bad, row(2.0), bad], **settings).judge(math.nan, 1.0).action == "skip"
    found = guard([row(2.0), bad, bad], **settings).judge(math.nan, 1.0)
    assert (found.action, found.given_up) == ("stop", True)
    assert "the updates of 2 steps before it were left out (guards.max_skipped)" in found.why


def test_a_step_of_the_loss_scaler_does_not_begin_a_new_count():
    bad = row(None, None, "the loss is nan")
    assert guard([bad, row(2.0, None)]).skipped == 1


values = st.floats(0.1, 1e3)


@given(st.lists(st.tuples(values, st.one_of(st.none(), values), st.sampled_from([None, "why"])), max_size=20), values)
def test_rows_that_were_written_and_read_judge_as_the_running_process(steps, loss):
    settings = GuardsConfig(spike_factor=1.5, spike_window=3, on_spike="skip", max_skipped=2)
    running = Guard(settings)
    for step in steps:
        running.note(row(*step))
    resumed = Guard.after(settings, [json.loads(json.dumps(row(*step))) for step in steps])
    assert resumed.judge(loss, loss) == running.judge(loss, loss)


def test_a_row_of_an_older_run_is_that_of_an_applied_step():
    assert guard([{"loss": 1.0, "grad_norm": 1.0}], spike_factor=2, spike_window=1).judge(3.0, 1.0) is not None


# ── the config ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_run_without_the_section_keeps_its_identity(tmp_path):
    config = tiny_config("store", tmp_path)
    assert config.guards is None
    assert "guards" not in identity(config)
    skips = tiny_config("store", tmp_path, guards={"nonfinite": "skip"})
    assert fingerprint(skips) != fingerprint(config)
    more = tiny_config("store", tmp_path, guards={"nonfinite": "skip", "max_skipped": 9})
    assert fingerprint(more) == fingerprint(skips)  # when it stops decides no number
    assert TrainConfig.model_validate(config.model_dump(mode="json")) == config


def test_an_action_that_nothing_can_cause_is_refused():
    with pytest.raises(ValidationError, match="on_spike does nothing without"):
        GuardsConfig(on_spike="skip")
