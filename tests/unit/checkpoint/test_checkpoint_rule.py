"""Which checkpoints stay, for any history."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmbatch.checkpoint.rule import Evidence, KeepRule, reasons_to_keep
from lmbatch.errors import CheckpointError

losses = st.none() | st.floats(min_value=0, max_value=20) | st.sampled_from([2.0, float("nan"), float("inf")])
evidence = st.builds(Evidence, step=st.integers(0, 400), valid=st.booleans(), loss=losses, pinned=st.booleans())
histories = st.lists(evidence, max_size=25, unique_by=lambda one: one.step)
rules = st.builds(KeepRule, newest=st.integers(2, 5), every=st.sampled_from([0, 1, 7, 50]), best=st.integers(0, 4))


def kept(found: list[Evidence], rule: KeepRule) -> set[int]:
    return {step for step, reasons in reasons_to_keep(found, rule).items() if reasons}


@given(histories, rules)
def test_never_fewer_than_the_newest_valid_ones(found: list[Evidence], rule: KeepRule) -> None:
    valid = sorted(one.step for one in found if one.valid)
    assert set(valid[-rule.newest :]) <= kept(found, rule)
    assert len(kept(found, rule) & set(valid)) >= min(2, len(valid))


@given(histories, rules)
def test_every_pinned_and_best_one_stays(found: list[Evidence], rule: KeepRule) -> None:
    stay = kept(found, rule)
    assert {one.step for one in found if one.pinned} <= stay
    assert (
        not rule.every or {one.step for one in found if one.valid and one.step and one.step % rule.every == 0} <= stay
    )
    judged = [one for one in found if one.valid and one.loss is not None and one.loss < 1e9]
    worst_kept = sorted(one.loss for one in judged)[: rule.best][-1:]
    for one in judged:
        assert not worst_kept or one.loss >= worst_kept[0] or one.step in stay


@given(histories, rules)
def test_a_second_look_deletes_nothing_more(found: list[Evidence], rule: KeepRule) -> None:
    stay = kept(found, rule)
    assert kept([one for one in found if one.step in stay], rule) == stay


@given(histories, rules)
def test_a_damaged_one_takes_nobodys_place(found: list[Evidence], rule: KeepRule) -> None:
    valid = [one for one in found if one.valid]
    assert kept(found, rule) & {one.step for one in valid} == kept(valid, rule)


@given(histories, rules, st.sampled_from(["newest", "best"]))
def test_a_more_generous_rule_keeps_no_less(found: list[Evidence], rule: KeepRule, field: str) -> None:
    more = replace(rule, **{field: getattr(rule, field) + 1})
    assert kept(found, rule) <= kept(found, more)


@given(histories, rules, st.integers(1, 50))
def test_a_new_one_without_an_evaluation_costs_no_best_one_its_place(
    found: list[Evidence], rule: KeepRule, after: int
) -> None:
    newer = Evidence(max((one.step for one in found), default=0) + after, valid=True)

    def best(found: list[Evidence]) -> set[int]:
        reasons = reasons_to_keep(found, rule)
        return {step for step, why in reasons.items() if any(each.startswith("best") for each in why)}

    assert best([*found, newer]) == best(found)
    assert newer.step in kept([*found, newer], rule)


def test_the_reasons_are_told() -> None:
    found = [Evidence(step, valid=step != 60, loss=step / 10, pinned=step == 20) for step in range(10, 90, 10)]
    assert reasons_to_keep(found, KeepRule(2, 40, 1)) == {
        10: ("best 1",), 20: ("pinned",), 30: (), 40: ("every 40",), 50: (), 60: (), 70: ("newest",),
        80: ("newest", "every 40"),
    }  # fmt: skip


def test_what_is_damaged_between_the_newest_stays() -> None:
    found = [Evidence(10, valid=True), Evidence(20, valid=False), Evidence(30, valid=True)]
    assert reasons_to_keep(found, KeepRule())[20] == ("newer than the oldest that is kept",)


def test_of_two_alike_the_newer_one_is_better() -> None:
    found = [Evidence(step, valid=True, loss=2.0) for step in (10, 20, 30, 40)]
    assert [step for step, why in reasons_to_keep(found, KeepRule(2, 0, 3)).items() if "best 3" in why] == [20]


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), None])
def test_a_loss_that_is_none_is_not_the_best(loss: float | None) -> None:
    found = [Evidence(step, valid=True, loss=5.0 - step / 100) for step in range(20, 70, 10)]
    for step in (10, 35, 45):
        assert kept([*found, Evidence(step, valid=True, loss=loss)], KeepRule(2, 0, 1)) == {50, 60}
    assert kept([Evidence(10, valid=True, loss=loss), *found[:1], *found[3:]], KeepRule(2, 0, 3)) == {20, 50, 60}


def test_a_damaged_one_is_not_the_best() -> None:
    found = [Evidence(step, valid=step != 10, loss=step / 10) for step in range(10, 60, 10)]
    assert kept(found, KeepRule(2, 0, 1)) == {20, 40, 50}


@pytest.mark.parametrize("wrong", [{"newest": 1}, {"every": -1}, {"best": -1}])
def test_rules_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(CheckpointError):
        KeepRule(**wrong)
