"""A run folder's checkpoints with small payloads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoint_helpers import fill, make_facts

from lmbatch.checkpoint import Checkpoints
from lmbatch.store import LocalStore

Save = Callable[..., Path]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "demo"


@pytest.fixture
def checkpoints(run_dir: Path) -> Checkpoints:
    return Checkpoints(LocalStore(run_dir))


@pytest.fixture
def save(checkpoints: Checkpoints) -> Save:
    def saved(*steps: int) -> Path:
        for step in steps:
            last = checkpoints.save(make_facts(step), fill(step))
        return last.folder

    return saved
