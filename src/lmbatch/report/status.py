"""How far a run is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmbatch.checkpoint import Checkpoints, CheckpointSummary
from lmbatch.config import TrainConfig, load_config
from lmbatch.errors import UsageError
from lmbatch.preprocess.estimate import Row
from lmbatch.report.foretold import foretold_rows
from lmbatch.store import open_store
from lmbatch.train.attempts import ATTEMPTS_FILE, Attempt, read_attempts
from lmbatch.train.metrics import evaluation_rows, last_step, read_metrics, skipped_rows, training_rows


@dataclass(frozen=True)
class RunStatus:
    """A run as its folder tells it. ``seconds_left`` is None where the length or the pace is not known.

    ``steps_lost`` had to be taken again; of ``steps_skipped`` the guards left the update out, the last one in step
    ``last_skipped``.
    """

    run: str
    step: int
    steps: int | None
    loss: float | None
    validation_loss: float | None
    tokens_per_second: float | None
    seconds_left: float | None
    steps_lost: int
    steps_skipped: int
    last_skipped: int | None
    last_skipped_why: str | None
    attempts: tuple[Attempt, ...]
    checkpoints: tuple[CheckpointSummary, ...]
    foretold: tuple[Row, ...] = ()  # what was predicted beside what happened
    job: dict[str, str] | None = None  # what the queue says of its job, where somebody asked

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        plain = asdict(self)
        for row, summary in zip(plain["checkpoints"], self.checkpoints, strict=True):
            row["facts"] = summary.facts.model_dump() if summary.facts else None
        return plain | {"foretold": [row.to_dict() for row in self.foretold]}


def is_run(place: Path) -> bool:
    """Is this the folder of a run that has been started?"""
    return (place / ATTEMPTS_FILE).is_file()


def run_status(run: Path) -> RunStatus:
    """Read a run folder. Raises UsageError for a folder that is none."""
    attempts = read_attempts(run)
    if not attempts:
        raise UsageError(f"{run}: no run has started here", remedy="give the folder of a run, such as runs/NAME")
    rows = read_metrics(run)
    steps = training_rows(rows)
    validation = evaluation_rows(rows)
    done, total = last_step(rows), _total_steps(run)
    losses = [row["loss"] for row in steps if row["loss"] is not None]
    skipped = skipped_rows(rows)
    checkpoints = tuple(Checkpoints(open_store(str(run))).list())
    recent = [row["seconds"] for row in steps[-20:]]
    left = (total - done) * sum(recent) / len(recent) if total is not None and recent else None
    return RunStatus(
        run=str(run),
        step=done,
        steps=total,
        loss=losses[-1] if losses else None,
        validation_loss=validation[-1]["loss"] if validation else None,
        tokens_per_second=steps[-1]["tokens_per_second"] if steps else None,
        seconds_left=left,
        steps_lost=sum(attempt.steps_lost for attempt in attempts),
        steps_skipped=len(skipped),
        last_skipped=skipped[-1]["step"] if skipped else None,
        last_skipped_why=skipped[-1]["skipped"] if skipped else None,
        attempts=tuple(attempts),
        checkpoints=checkpoints,
        foretold=foretold_rows(run, attempts, rows, checkpoints),
    )


def _total_steps(run: Path) -> int | None:
    """The length of the run, as its last attempt worked it out (an `epochs` config does not tell it by itself)."""
    try:
        facts = json.loads((run / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        facts = {}
    if isinstance(facts.get("total_steps"), int):
        return int(facts["total_steps"])
    config = run / "config.yaml"
    return load_config(TrainConfig, config).steps if config.is_file() else None
