"""Two runs, step by step: the same losses and the same samples, bit for bit, or where they part."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmbatch.errors import UsageError
from lmbatch.train.metrics import evaluation_rows, read_metrics, reproducible, training_rows

_Rows = dict[int, dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """``equal`` only if both runs have the same steps, each with the same samples and bit-equal numbers.

    ``largest_loss_difference`` is in nats per token over the steps that both have, where both losses are finite.
    """

    first: str
    second: str
    steps_first: int
    steps_second: int
    steps_compared: int
    same_samples: bool
    same_losses: bool
    same_evaluations: bool
    first_difference: str | None
    largest_loss_difference: float

    @property
    def equal(self) -> bool:
        """Bit for bit the same curve over the same samples."""
        complete = self.steps_first == self.steps_second == self.steps_compared
        return complete and self.first_difference is None

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self) | {"equal": self.equal}


def compare_runs(first: Path, second: Path) -> Comparison:
    """Compare what two runs logged. Raises UsageError for a folder that holds no run."""
    a, a_eval = _rows(first)
    b, b_eval = _rows(second)
    common = sorted(a.keys() & b.keys())
    if not common:
        raise UsageError(f"{first} and {second} have no step in common", remedy="give the folders of two runs")
    return Comparison(
        first=str(first),
        second=str(second),
        steps_first=len(a),
        steps_second=len(b),
        steps_compared=len(common),
        same_samples=all(_order(a[step]) == _order(b[step]) for step in common),
        same_losses=all(a[step]["loss"] == b[step]["loss"] for step in common),
        same_evaluations=a_eval == b_eval,
        first_difference=_first_difference(a, b, common) or _evaluation_difference(a_eval, b_eval),
        largest_loss_difference=max((_loss_difference(a[step], b[step]) for step in common), default=0.0),
    )


def _rows(run: Path) -> tuple[_Rows, _Rows]:
    rows = reproducible(read_metrics(run))
    if not rows:
        raise UsageError(f"{run}: holds no metrics of a run", remedy="give the folder of a run, such as runs/NAME")
    return (
        {row["step"]: row for row in training_rows(rows)},
        {row["step"]: row for row in evaluation_rows(rows)},
    )


def _loss_difference(a: dict[str, Any], b: dict[str, Any]) -> float:
    """A loss that was not finite is logged as null."""
    return 0.0 if a["loss"] is None or b["loss"] is None else float(abs(a["loss"] - b["loss"]))


def _order(row: dict[str, Any]) -> tuple[Any, Any]:
    """Which samples, and which tokens, the step was made of."""
    return row["samples"], row["data"]


def _first_difference(a: _Rows, b: _Rows, steps: list[int]) -> str | None:
    for step in steps:
        for key in a[step].keys() | b[step].keys():
            if a[step].get(key) != b[step].get(key):
                return f"step {step}: {key} is {a[step].get(key)!r} and {b[step].get(key)!r}"
    return None


def _evaluation_difference(a: _Rows, b: _Rows) -> str | None:
    if a.keys() != b.keys():
        return f"evaluated after steps {sorted(a)} and {sorted(b)}"
    found = _first_difference(a, b, sorted(a))
    return f"evaluation after {found}" if found else None
