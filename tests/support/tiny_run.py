"""Tiny training runs: their config, and child processes that are made to stop or die at an exact step.

The children are forked from a server process that has imported torch once, so each costs no start-up time and still
is a process of its own that can be killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import yaml

from lmbatch.config import TrainConfig
from lmbatch.config.load import build, merge

TINY_GPT2 = {"type": "gpt2", "config": {"n_layer": 2, "n_embd": 32, "n_head": 2}}


def tiny_settings(store: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """A config as plain values: 20 steps of 8 samples of 32 tokens, a checkpoint every 5."""
    settings = {
        "run": {"name": "tiny", "dir": str(folder)},
        "data": {"store": store, "sequence_length": 32, "cache": {"dir": str(folder / "cache")}},
        "model": TINY_GPT2,
        "optimizer": {"lr": 0.01},
        "schedule": {"warmup_steps": 3},
        "batch": {"size": 8, "micro": 4},
        "steps": 20,
        "seed": 1,
        "evaluate": {"every": 8, "batches": 3},
        "save": {"every": 5},
        "tensorboard": False,
    }
    return merge(settings, changes)


def tiny_config(store: str, folder: Path, **changes: Any) -> TrainConfig:
    """The same, checked."""
    return build(TrainConfig, tiny_settings(store, folder, **changes), "tiny")


def write_config(path: Path, settings: dict[str, Any]) -> Path:
    """The same, as a YAML file."""
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return path


def call_after_step(step: int, action) -> None:
    """From now on call ``action`` when the row of ``step`` has been recorded."""
    from lmbatch.train.recorder import Recorder

    original = Recorder.train

    def train(self, row):
        original(self, row)
        if row["step"] == step:
            action()

    Recorder.train = train


def _child(config: str, step: int, number: int, stage: str | None) -> None:
    import torch

    from lmbatch.train.__main__ import main
    from lmbatch.train.stop import StopFlag

    torch.set_num_threads(1)

    def die() -> None:
        os.kill(os.getpid(), number)

    if stage is None:
        call_after_step(step, die)
    else:
        _at_stage_after(step, stage, die)
    os._exit(main(["--config", config], stop=StopFlag().install()))


def _at_stage_after(step: int, stage: str, action) -> None:
    """Arm the stage with the save of ``step``: the one before may still be on its way when that step is done."""
    from lmbatch.checkpoint import Checkpoints, stages

    original = Checkpoints.save

    def save(self, facts, write):
        if facts.step == step:
            stages.on_stage = lambda reached: action() if reached.name == stage else None
        return original(self, facts, write)

    Checkpoints.save = save


def run_child(config: Path, *, step: int, number: signal.Signals, stage: str | None = None) -> int:
    """Train in a process of its own that sends itself a signal after ``step`` (or in the save that follows it).

    The exit code; minus the signal's number for a process that was killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lmbatch.train.worker", "lmbatch.infer"])
    process = context.Process(target=_child, args=(str(config), step, int(number), stage))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def newest_payload(run_dir: Path) -> dict[str, bytes]:
    """The bytes of the newest checkpoint's weights and optimizer state."""
    from lmbatch.checkpoint import Checkpoints
    from lmbatch.store import open_store

    found, _ = Checkpoints(open_store(str(run_dir))).newest_valid()
    assert found is not None
    names = ("model.safetensors", "optimizer.safetensors", "optimizer.json")
    return {name: (found.folder / name).read_bytes() for name in names}


def saved_steps(run_dir: Path) -> list[int]:
    """The steps that have a committed checkpoint."""
    from lmbatch.checkpoint import Checkpoints
    from lmbatch.store import open_store

    return [summary.step for summary in Checkpoints(open_store(str(run_dir))).list() if summary.state == "committed"]


def assert_equal_runs(one: Path, other: Path) -> None:
    """Rows of metrics and final state agree bit for bit."""
    from lmbatch.train.metrics import read_metrics, reproducible

    assert reproducible(read_metrics(one)) == reproducible(read_metrics(other))
    assert newest_payload(one) == newest_payload(other)
