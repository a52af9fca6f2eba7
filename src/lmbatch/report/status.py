"""How far a run or a preprocessing store is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmbatch.checkpoint import Checkpoints, CheckpointSummary
from lmbatch.config import TrainConfig, load_config
from lmbatch.errors import UsageError
from lmbatch.preprocess import StageProgress, load_plan, read_receipts, stage_progress
from lmbatch.store import MANIFEST_KEY, Ledger, Store, open_store, parse_manifest
from lmbatch.train.attempts import Attempt, read_attempts
from lmbatch.train.metrics import evaluation_rows, last_step, read_metrics, training_rows


@dataclass(frozen=True)
class RunStatus:
    """A run as its folder tells it. ``seconds_left`` is None where the length or the pace is not known."""

    run: str
    step: int
    steps: int | None
    loss: float | None
    validation_loss: float | None
    tokens_per_second: float | None
    seconds_left: float | None
    steps_lost: int
    attempts: tuple[Attempt, ...]
    checkpoints: tuple[CheckpointSummary, ...]

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        plain = asdict(self)
        for row, summary in zip(plain["checkpoints"], self.checkpoints, strict=True):
            row["facts"] = summary.facts.model_dump() if summary.facts else None
        return plain


@dataclass(frozen=True)
class StoreStatus:
    """A preprocessing store as its plan, receipts and manifest tell it.

    All but ``stages`` is of the last stage, which writes the shards.
    """

    store: str
    corpus: str
    tasks: int
    tasks_done: int
    input_bytes: int
    input_bytes_done: int
    tokens: int
    ledger: Ledger
    engines: dict[str, int]
    digest: str | None
    stages: tuple[StageProgress, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        tokens = self.ledger.tokens
        share = tokens.share_lost if tokens is not None else 0.0
        return asdict(self) | {"ledger": self.ledger.model_dump(), "share_thrown_away": share}


def run_status(run: Path) -> RunStatus:
    """Read a run folder. Raises UsageError for a folder that is none."""
    attempts = read_attempts(run)
    if not attempts:
        raise UsageError(f"{run}: no run has started here", remedy="give the folder of a run, such as runs/NAME")
    rows = read_metrics(run)
    steps = training_rows(rows)
    validation = evaluation_rows(rows)
    done, total = last_step(rows), _total_steps(run)
    recent = [row["seconds"] for row in steps[-20:]]
    left = (total - done) * sum(recent) / len(recent) if total is not None and recent else None
    return RunStatus(
        run=str(run),
        step=done,
        steps=total,
        loss=steps[-1]["loss"] if steps else None,
        validation_loss=validation[-1]["loss"] if validation else None,
        tokens_per_second=steps[-1]["tokens_per_second"] if steps else None,
        seconds_left=left,
        steps_lost=sum(attempt.steps_lost for attempt in attempts),
        attempts=tuple(attempts),
        checkpoints=tuple(Checkpoints(open_store(str(run))).list()),
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


def store_status(store: Store) -> StoreStatus:
    """Read a store's plan and receipts (not its shards). Raises ObjectNotFoundError if it holds no plan."""
    plan = load_plan(store)
    receipts = read_receipts(store, plan.tasks)
    engines: dict[str, int] = {}
    for receipt in receipts.values():
        engines[receipt.engine] = engines.get(receipt.engine, 0) + 1
    digest = None
    if store.exists(MANIFEST_KEY):
        digest = parse_manifest(store.read(MANIFEST_KEY), f"{store.uri}/{MANIFEST_KEY}").digest
    return StoreStatus(
        store=store.uri,
        corpus=plan.config.corpus.name,
        tasks=len(plan.tasks),
        tasks_done=len(receipts),
        input_bytes=plan.input_bytes,
        input_bytes_done=sum(receipt.input_bytes for receipt in receipts.values()),
        tokens=sum(shard.tokens for receipt in receipts.values() for shard in receipt.shards),
        ledger=Ledger.total(receipt.ledger for receipt in receipts.values()),
        engines=engines,
        digest=digest,
        stages=stage_progress(store, plan),
    )
