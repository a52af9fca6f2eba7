"""metrics.jsonl: one row per optimizer step, one per evaluation, one per save and upload.

A training row is ``{"kind": "train", "step", "loss", "lr", "grad_norm", "skipped", "spike", "samples": [first, end),
"data", "tokens", "seconds", "tokens_per_second", "mfu"}``; ``step`` counts the steps done, this one included, ``loss``
is nats per predicted token, ``tokens`` are those that the model read, ``grad_norm`` is that before clipping, ``data``
identifies the tokens of the global batch, and in a masked run which of them are hidden. ``loss`` and ``grad_norm`` are
null where they are not finite. ``skipped`` says why a guard left the update out, ``spike`` in which way a step stands
out whose update was applied all the same; both are null for any other step, and rows of older runs lack them. An
evaluation row is ``{"kind": "evaluation", "step", "loss", "perplexity", "bits_per_byte", "tokens", "seconds"}``, where
``tokens`` are the predicted ones; ``bits_per_byte`` is null in a masked run.

A save is ``{"kind": "save", "step", "bytes", "asynchronous", "stall_seconds", "waited_seconds", "write_seconds"}``,
written when it is committed, which may be some steps later: training stood still for ``stall_seconds``, of these
``waited_seconds`` for the save before; writing, hashing, fsync and retention took ``write_seconds``. One that was due
but left out (`save.when_busy`) is ``{"kind": "save", "step", "left_out_for"}``, with the step of the save that was not
through. An upload is ``{"kind": "upload", "step", "upload_seconds"}``.

Two runs that agree bit for bit have equal rows of steps and evaluations, but for ``seconds``, ``tokens_per_second`` and
``mfu``.
"""

from __future__ import annotations

from pathlib import Path

from lmbatch.train.records import Record, cut_records, read_records

METRICS_FILE = "metrics.jsonl"
_KINDS = ("train", "evaluation")
_MEASURED = ("seconds", "tokens_per_second", "mfu")


def read_metrics(run_dir: Path) -> list[Record]:
    """Every row of a run, oldest first; [] before the first step."""
    return read_records(run_dir / METRICS_FILE)


def training_rows(rows: list[Record]) -> list[Record]:
    """The rows of optimizer steps."""
    return [row for row in rows if row["kind"] == "train"]


def evaluation_rows(rows: list[Record]) -> list[Record]:
    """The rows of evaluations."""
    return [row for row in rows if row["kind"] == "evaluation"]


def validation_losses(rows: list[Record]) -> dict[int, float]:
    """The loss of each evaluation, by step."""
    return {row["step"]: row["loss"] for row in evaluation_rows(rows)}


def save_rows(rows: list[Record]) -> list[Record]:
    """The rows of saves that were committed."""
    return [row for row in rows if row["kind"] == "save" and "left_out_for" not in row]


def skipped_rows(rows: list[Record]) -> list[Record]:
    """The rows of optimizer steps whose update a guard left out."""
    return [row for row in training_rows(rows) if row.get("skipped") is not None]


def last_step(rows: list[Record]) -> int:
    """The last step that was logged; 0 before the first."""
    return max((row["step"] for row in training_rows(rows)), default=0)


def reproducible(rows: list[Record]) -> list[Record]:
    """Steps and evaluations without what a clock measured: equal for two runs that agree bit for bit."""
    found = [row for row in rows if row["kind"] in _KINDS]
    return [{key: value for key, value in row.items() if key not in _MEASURED} for row in found]


def cut_after(path: Path, step: int) -> int:
    """Remove the rows of steps after ``step``, which will be taken again; how many there were."""
    return cut_records(path, lambda row: row["step"] <= step)
