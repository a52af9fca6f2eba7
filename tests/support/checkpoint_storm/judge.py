"""Is this run, after all that it went through, the run that nothing disturbed?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lmbatch.train.metrics import read_metrics, reproducible
from lmbatch.train.records import read_records
from support.checkpoint_storm.run import STEPS, BadOutcomeError, Ended, Run
from support.checkpoint_storm.survey import Survey, by_name, payload, receipts

Rows = list[dict[str, Any]]
# Python's and numpy's generators: no step draws from them, and the pauses before retries do.
UNEQUAL = "rng.json"
GOOD = ("ridden out", "resumed", "walked back", "from the store", "stopped, said why", "refused")
BAD = ("WRONG RESUME", "LOST WORK", "TORN COMMIT", "NOT REFUSED", "UNCLEAR", "HUNG")


@dataclass(frozen=True)
class Whole:
    """All of a finished run that a clock does not decide: the rows, the sampled texts, the sha256 of every file."""

    metrics: Rows
    samples: Rows
    files: dict[str, str]

    @classmethod
    def of(cls, run: Run, place: str = "run") -> Whole:
        """Read it. The files are those of the last checkpoint in that place."""
        store = run.store(place)
        found = receipts(store)
        if not found or found[-1][1] != STEPS:
            raise BadOutcomeError("LOST WORK", f"{store.uri}: has no checkpoint of the last step")
        files = by_name(payload(store, found[-1][0]))
        files.pop(UNEQUAL)
        return cls(reproducible(read_metrics(run.run_dir)), read_records(run.run_dir / "samples.jsonl"), files)


def settle(run: Run, straight: Whole) -> str:
    """Resume until it is done, repairing what was spoilt if it refuses to go on. Gives the outcome, or raises it."""
    refused = said_why = False
    for ended in run.ended:
        said_why |= ended.code == 1
    for _ in range(3):
        run.calm()
        before = run.look()
        ended = run.attempt()
        if ended.code == 0:
            outcome = _resumed(run, before)
            _compare(run, straight)
            return "refused" if refused else "stopped, said why" if said_why else outcome
        _check_refusal(run, before, ended)
        run.heal()
        if run.lost:  # a folder that is not empty any more gets no records from the store: begin with none again
            run.lose_run_folder()
        refused = True
    raise BadOutcomeError("UNCLEAR", f"it refuses although all is repaired: {ended.reason}")


def check_reason(ended: Ended, *names: str) -> None:
    """Raises BadOutcomeError unless the attempt ended with one message of ours that holds one of the names."""
    if ended.code not in (1, 2) or "Traceback" in ended.said:
        raise BadOutcomeError("UNCLEAR", f"exit code {ended.code}: {ended.said[-1500:]}")
    if not any(name in ended.reason for name in names):
        raise BadOutcomeError("UNCLEAR", f"names none of {names}: {ended.reason}")


def _check_refusal(run: Run, before: dict[str, Survey], ended: Ended) -> None:
    spoilt = [key for place in run.places for key in run.damaged[place]]
    check_reason(ended, *spoilt, *(key.rpartition("/")[0] for key in spoilt if key.endswith("receipt.json")))
    if any(found.valid for found in before.values()) and not run.may_refuse:
        raise BadOutcomeError("LOST WORK", f"it refuses although there are valid checkpoints {before}: {ended.reason}")


def _resumed(run: Run, before: dict[str, Survey]) -> str:
    """The outcome, by where the last attempt went on. Raises if it was not from the best that there was."""
    events = read_records(run.run_dir / "attempts.jsonl")
    step = [event["step"] for event in events if event["event"] == "resumed"][-1]
    valid = {place: before[place].valid for place in run.places}
    best = max((step for steps in valid.values() for step in steps), default=0)
    if step < best:
        raise BadOutcomeError(
            "LOST WORK", f"it went on from step {step}; there was a valid checkpoint of step {best}: {before}"
        )
    if step in valid.get("mirror", ()) and step not in valid["run"]:
        return "from the store"
    if any(step < other for found in before.values() for other in found.damaged):
        return "walked back"
    return "ridden out" if all(ended.code == 0 for ended in run.ended) else "resumed"


def _compare(run: Run, straight: Whole) -> None:
    events = read_records(run.run_dir / "attempts.jsonl")
    first = next(event["step"] for event in events if event["event"] == "resumed") if run.lost else 0
    for place in run.places:
        found = Whole.of(run, place)
        _same(f"the rows after step {first}", _after(found.metrics, first), _after(straight.metrics, first))
        _same("the sampled texts", _after(found.samples, first), _after(straight.samples, first))
        for name in straight.files.keys() | found.files.keys():
            _same(f"{place}: {name}", found.files.get(name), straight.files.get(name))
    run.look()


def _after(rows: Rows, step: int) -> Rows:
    return [row for row in rows if row["step"] > step]


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        if isinstance(found, list) and isinstance(expected, list):  # only what differs
            found, expected = (
                [row for row in found if row not in expected],
                [row for row in expected if row not in found],
            )
        raise BadOutcomeError("WRONG RESUME", f"{what}: {_short(found)} instead of {_short(expected)}")


def _short(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)[:600]
