"""A minute of the real training, thrown away: how fast this machine is with this config.

::

    random tokens ──▶ a store in a folder beside the runs ──▶ python -m lmbatch.train (one process) ──▶ metrics.jsonl
                                                                └─ after `seconds` a stop file: a save, exit 75

Loader, engine, optimizer and save are those of the run; only the tokens mean nothing, and no evaluation is done.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lmbatch.config import TrainConfig
from lmbatch.config.load import merge
from lmbatch.errors import EXIT_REQUEUE, LaunchError, UsageError
from lmbatch.shards import ShardWriter
from lmbatch.shards.dtypes import dtype_for
from lmbatch.store import MANIFEST_KEY, Ledger, Manifest, TokenizerEntry, open_store, to_json
from lmbatch.train.attempts import read_attempts
from lmbatch.train.folder import RunFolder
from lmbatch.train.metrics import read_metrics, save_rows, training_rows

PROBE_SECONDS = 60.0
_WARM_UP = 2  # first steps, which are not counted
_LEAST = 3  # steps that are counted, however long they take
_MICRO_BATCHES = 4  # of a step at most, so that a slow machine takes some steps
_START_SECONDS = 300.0  # for the imports and the first step
_STOP_SECONDS = 300.0
_POLL = 0.2
_DOCUMENT = 1000
_EOD = "<eod>"


@dataclass(frozen=True)
class Probed:
    """What one process did: tokens per second over ``steps`` steps, bytes of its checkpoint and the seconds that
    writing took, its peak memory, and seconds from the start to the first step."""

    tokens_per_second: float
    steps: int
    checkpoint_bytes: int
    write_seconds: float
    peak_host_bytes: int | None
    peak_device_bytes: int | None
    start_seconds: float | None


def probe_training(
    config: TrainConfig, *, vocabulary: int, world: int, precision: str, seconds: float = PROBE_SECONDS,
    on_progress: Callable[[float, float, str], None] = lambda done, total, note: None,
) -> Probed:  # fmt: skip
    """Train on random tokens for about ``seconds`` after the first step. ``world`` processes share the batch of the
    real run; the probe is one of them.

    Raises UsageError for a config that random tokens cannot stand in for, LaunchError if training fails.
    """
    if config.objective is not None or config.model.base is not None:
        raise UsageError(
            "--probe trains a new causal model on random tokens; this config is masked, or has a model.base",
            remedy="leave --probe out and give --mfu, or measure with a short real run",
        )
    runs = RunFolder.of(config.run).path.parent
    runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=runs) as name:
        folder = Path(name)
        settings = _settings(config, folder, world=world, precision=precision)
        samples = 2 * int(settings["batch"]["size"])
        _write_store(folder / "store", vocabulary, samples * (config.data.sequence_length + 1))
        path = folder / "probe.yaml"
        path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
        _train(path, folder / "run", seconds, on_progress)
        return _found(folder / "run")


def _settings(config: TrainConfig, folder: Path, *, world: int, precision: str) -> dict[str, Any]:
    """The same config with another corpus and run folder, and nothing but steps; a save comes with the stop."""
    micro = config.batch.micro
    passes = max(1, min(_MICRO_BATCHES, config.batch.size // (micro * world)))
    changes: dict[str, Any] = {
        "run": {"name": "run", "dir": str(folder), "hang_seconds": 0},
        "data": {"store": str(folder / "store"), "digest": None, "cache": {"dir": str(folder / "cache")}},
        "tokenizer": None, "steps": 10**9, "epochs": None, "batch": {"size": micro * passes},
        "precision": precision, "evaluate": {"batches": 0}, "samples": {"prompts": []}, "log_every": 10**6,
        "save": {"every": 10**9, "every_epoch": False, "keep_best": 0, "store": None}, "tensorboard": False,
        "tracking": {"swanlab": None, "wandb": None},
    }  # fmt: skip
    return merge(config.model_dump(mode="json"), changes)


def _write_store(root: Path, vocabulary: int, tokens: int) -> None:
    """A finished corpus of random ids. Its tokenizer has a size and no files, which training alone does not need."""
    dtype = dtype_for(vocabulary - 1)
    folder = root / "shards" / "train"
    folder.mkdir(parents=True)
    writer = ShardWriter(folder, "random", dtype)
    random = np.random.default_rng(0)
    for number in range(-(-tokens // _DOCUMENT)):
        ids = random.integers(0, vocabulary, _DOCUMENT)
        writer.append(ids, piece=0, position=number, id=None, text_bytes=0)
    entry = writer.close().entry("train", "shards/train/random")
    tokenizer = TokenizerEntry(
        fingerprint="sha256:random", size=vocabulary, largest_id=vocabulary - 1, eod_token=_EOD, eod_id=0
    )
    ledger = Ledger(records=entry.documents, documents={"train": entry.documents})
    manifest = Manifest(
        corpus="random", config="sha256:random", dtype=dtype, tokenizer=tokenizer, shards=(entry,), ledger=ledger
    )
    open_store(str(root)).put(MANIFEST_KEY, to_json(manifest.sealed()))


def _train(
    config: Path, run: Path, seconds: float, on_progress: Callable[[float, float, str], None]
) -> None:  # fmt: skip
    log = config.with_suffix(".log")
    command = [sys.executable, "-m", "lmbatch.train", "--config", str(config)]
    environ = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "SLURM_JOB_ID")}
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environ) as process:
        code: int | None = None
        try:
            _watch(process, run, seconds, on_progress)
            (run / "stop").touch()
            code = process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        except FileNotFoundError:  # no run folder: it has ended before it made one
            code = process.wait()
        finally:
            process.kill()  # does nothing to one that has ended
    if code != EXIT_REQUEUE:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        raise LaunchError(f"the probe failed (exit code {code}): {' | '.join(lines)}", remedy="try the config as it is")


def _watch(
    process: subprocess.Popen[bytes], run: Path, seconds: float, on_progress: Callable[[float, float, str], None]
) -> None:
    """Until enough is measured, or the process has ended, or has not begun in time."""
    begun, first = time.monotonic(), None
    while process.poll() is None:
        now, steps = time.monotonic(), len(training_rows(read_metrics(run)))
        first = now if first is None and steps else first
        passed = 0.0 if first is None else now - first
        on_progress(min(passed, seconds), seconds, f"{steps} steps" if steps else "starting")
        enough = passed >= seconds and steps >= _WARM_UP + _LEAST
        if enough or now - begun > _START_SECONDS + 10 * seconds:
            return
        time.sleep(_POLL)


def _found(run: Path) -> Probed:
    rows = read_metrics(run)
    steps = training_rows(rows)[_WARM_UP:]
    if not steps:
        raise LaunchError("the probe took no step in time", remedy="lower batch.micro, or give --mfu instead")
    saved, attempt = save_rows(rows)[-1], read_attempts(run)[-1]
    return Probed(
        tokens_per_second=sum(row["tokens"] for row in steps) / sum(row["seconds"] for row in steps),
        steps=len(steps),
        checkpoint_bytes=saved["bytes"],
        write_seconds=saved["write_seconds"],
        peak_host_bytes=attempt.peak_host_bytes,
        peak_device_bytes=attempt.peak_device_bytes,
        start_seconds=attempt.seconds_to_first_step,
    )
