"""Runs of several processes under every engine, and what makes two of them one and the same run."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from lmbatch.config.load import merge
from lmbatch.train.metrics import evaluation_rows, read_metrics, reproducible, training_rows
from support.rank_server import RankServer, logs
from support.tiny_run import newest_payload, tiny_settings, write_config

# Else everything in a tiny model is too small to be shared out, or to be let go again.
SMALL = {"bucket_elements": 1000}
# Without dropout, whose seed goes by the process; sizes that two processes cannot halve evenly; clipping in most steps.
CHANGES: dict[str, Any] = {
    "model": {"config": {"n_embd": 30, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}},
    "optimizer": {"clip_norm": 0.5},
    "batch": {"micro": 2},
    "run": {"hang_seconds": 40.0},
    "steps": 10,
    "evaluate": {"every": 5, "batches": 3},
    "samples": {"prompts": ["一"], "generate": {"max_new_tokens": 4, "temperature": 0}},
}
Shape = tuple[int, dict[str, Any]]  # processes, engine


class Runner:
    """Starts runs, each in a folder of its own. ``shapes`` by name."""

    def __init__(self, server: RankServer, store: str, shapes: dict[str, Shape]) -> None:
        self._server, self._store, self._shapes = server, store, shapes

    def __call__(self, folder: Path, shape: str, *, codes=(0,), changes=None, environ=None, **events) -> Path:
        world, engine = self._shapes[shape]
        settings = tiny_settings(self._store, folder, **merge({**CHANGES, "engine": engine}, changes or {}))
        config = write_config(folder / "tiny.yaml", settings)
        found = self._server.run(config, world=world, environ=environ, **events)
        # Whoever loses its peer to SIGKILL may notice it, and end with 1, before it is killed as well.
        noticed = {1} if -signal.SIGKILL in codes else set()
        assert set(found) - noticed == set(codes), logs(config)
        return folder / "tiny"


def assert_same_losses(run_dir: Path, straight: Path, tolerance: float) -> None:
    """The same samples in the same steps with the same learning rates; losses and gradient norms but for rounding."""
    rows, expected = read_metrics(run_dir), read_metrics(straight)
    for key in ("step", "samples", "data", "lr"):
        assert [row[key] for row in training_rows(rows)] == [row[key] for row in training_rows(expected)]
    for kind in (training_rows, evaluation_rows):
        losses = [row["loss"] for row in kind(expected)]
        assert [row["loss"] for row in kind(rows)] == pytest.approx(losses, rel=0, abs=tolerance)
    norms = [row["grad_norm"] for row in training_rows(expected)]
    assert [row["grad_norm"] for row in training_rows(rows)] == pytest.approx(norms, rel=1e-5)


def assert_bit_for_bit(run_dir: Path, straight: Path) -> None:
    """All rows and the newest checkpoint."""
    assert reproducible(read_metrics(run_dir)) == reproducible(read_metrics(straight))
    assert newest_payload(run_dir) == newest_payload(straight)
