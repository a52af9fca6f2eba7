"""Everything that the page of a run shows, from its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lmbatch.checkpoint import is_locked
from lmbatch.config import TrainConfig, load_config
from lmbatch.errors import LmbatchError
from lmbatch.report.run.curve import Curve, curve_of
from lmbatch.report.run.timeline import Span, timeline
from lmbatch.report.status import RunStatus, run_status
from lmbatch.store import Manifest, parse_manifest
from lmbatch.train.metrics import evaluation_rows, read_metrics, save_rows, training_rows
from lmbatch.train.records import Record, read_records

_SAMPLED_STEPS = 6
_NOTED_STEPS = 50


@dataclass(frozen=True, slots=True)
class SaveFigures:
    """What saving has cost. Times in seconds."""

    saves: int
    stall_median: float
    stall_sum: float
    write_median: float
    bytes: int


@dataclass(frozen=True)
class RunReport:
    """A run for its page. ``curves`` by the name of their column; ``validation`` are (step, loss).

    ``samples`` are rows of samples.jsonl, those of the last rounds; ``noted`` the steps that a guard left out or called
    a spike. What the folder does not hold is None.
    """

    status: RunStatus
    running: bool
    curves: dict[str, Curve]
    validation: tuple[tuple[int, float], ...]
    spans: tuple[Span, ...]
    step_seconds: float
    tokens: int
    samples_consumed: int
    saves: SaveFigures | None
    samples: tuple[Record, ...]
    noted: tuple[Record, ...]
    config: TrainConfig | None
    config_text: str
    manifest: Manifest | None
    model: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the run."""
        return Path(self.status.run).resolve().name

    @property
    def state(self) -> str:
        """``running``, or how its last attempt ended."""
        if self.running:
            return "running"
        return self.status.attempts[-1].why or "died without notice"


def run_report(run: Path) -> RunReport:
    """Read a run folder. Raises UsageError for a folder that is none, CheckpointError for a damaged log."""
    status = run_status(run)
    rows = read_metrics(run)
    steps = training_rows(rows)
    seconds = median(row["seconds"] for row in steps) if steps else 0.0
    text = _text(run / "config.yaml")
    return RunReport(
        status=status,
        running=is_locked(run),
        curves={name: curve_of((row["step"], row.get(name)) for row in steps)
                for name in ("loss", "lr", "grad_norm", "tokens_per_second", "mfu")},
        validation=tuple((row["step"], row["loss"]) for row in evaluation_rows(rows)),
        spans=timeline(status.attempts, seconds),
        step_seconds=seconds,
        tokens=sum(row["tokens"] for row in steps),
        samples_consumed=max((row["samples"][1] for row in steps), default=0),
        saves=_saves(rows),
        samples=_last_rounds(read_records(run / "samples.jsonl")),
        noted=tuple(row for row in steps if row.get("skipped") or row.get("spike"))[-_NOTED_STEPS:],
        config=_config(run),
        config_text=text,
        manifest=_manifest(run / "manifest.json"),
        model=_model(run),
    )  # fmt: skip


def _saves(rows: list[Record]) -> SaveFigures | None:
    found = save_rows(rows)
    if not found:
        return None
    stalls = [row["stall_seconds"] for row in found]
    writes = [row["write_seconds"] for row in found]
    return SaveFigures(len(found), median(stalls), sum(stalls), median(writes), sum(row["bytes"] for row in found))


def _last_rounds(rows: Sequence[Record]) -> tuple[Record, ...]:
    """The samples of the last steps at which some were made, the newest first."""
    steps = sorted({row["step"] for row in rows}, reverse=True)[:_SAMPLED_STEPS]
    return tuple(row for step in steps for row in rows if row["step"] == step)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _config(run: Path) -> TrainConfig | None:
    """None where there is none, or where another version wrote it."""
    path = run / "config.yaml"
    try:
        return load_config(TrainConfig, path) if path.is_file() else None
    except LmbatchError:
        return None


def _manifest(path: Path) -> Manifest | None:
    try:
        return parse_manifest(path.read_bytes(), str(path)) if path.is_file() else None
    except LmbatchError:
        return None


def _model(run: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(run / "model.json") or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
