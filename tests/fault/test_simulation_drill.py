"""The simulation against a real drill: the same ends at the same steps, and the same ledger."""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lmbatch.config import TrainSite
from lmbatch.simulate import TrainCase
from lmbatch.simulate.machines import Chance, Nodes
from lmbatch.simulate.training import Month
from lmbatch.train import train
from lmbatch.train.attempts import read_attempts
from support.tiny_corpus import write_corpus
from support.tiny_run import run_child, tiny_config, tiny_settings, write_config

# What is on its way behind training when a process is killed depends on this machine.
SAVE = {"save": {"every": 5, "asynchronous": False}}


@dataclass
class Script(Chance):
    """Waits as they are written down, instead of drawn: of each attempt failure, hang and preemption."""

    waits: list[float] = field(default_factory=list)

    def wait(self, hours: float) -> float:
        return self.waits.pop(0) if self.waits else math.inf

    def around(self, mean: float, spread: float) -> float:
        return mean


def told(run: Path) -> list[tuple[str | None, int | None, int, int | None]]:
    """What the ledger says that does not depend on time."""
    return [
        (attempt.why, attempt.resumed_from, attempt.steps_lost, attempt.last_saved_step)
        for attempt in read_attempts(run)
    ]


@pytest.fixture
def drill(tmp_path: Path) -> Path:
    """Killed after step 8, asked to stop after step 12, killed after step 14; then to the end at step 20."""
    store = write_corpus(tmp_path / "store")
    config = write_config(tmp_path / "tiny.yaml", tiny_settings(store, tmp_path, **SAVE))
    assert run_child(config, step=8, number=signal.SIGKILL) == -signal.SIGKILL
    assert run_child(config, step=12, number=signal.SIGTERM) == 75
    assert run_child(config, step=14, number=signal.SIGKILL) == -signal.SIGKILL
    return train(tiny_config(store, tmp_path, **SAVE)).run_dir


def test_the_ledger_of_a_drill_is_the_ledger_of_its_simulation(drill: Path, tmp_path: Path) -> None:
    # Seconds are steps here: nothing else takes time, and an attempt begins where its checkpoint was.
    case = TrainCase(Nodes(count=1, detect=0, requeue=0), steps=20, stall=0, write=0, startup=0, queue=0, preflight=0)
    folder = tmp_path / "simulated"
    folder.mkdir()
    month = Month(tiny_config("/none", tmp_path, **SAVE), TrainSite(), case, folder, lambda *_: None)
    month.chance = Script(waits=[8.5, math.inf, math.inf, math.inf, math.inf, 6.5, 2.5, math.inf, math.inf])
    month.run()
    assert told(folder) == told(drill)
    assert [lost for _, _, lost, _ in told(drill)] == [3, 0, 2, 0]
