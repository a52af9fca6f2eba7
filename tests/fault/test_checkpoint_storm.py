"""The short form of the storm over checkpoints: every fault once that no clock decides. `make test-storm` is the long.

It runs in a process of its own, for mounts and forks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmbatch.checkpoint.stages import Stage

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ENVIRON = {**os.environ, "OMP_NUM_THREADS": "1"}


def storm(*arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-m", "support.checkpoint_storm", *arguments], env={**ENVIRON, "PYTHONPATH": paths},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.timeout(1200)  # a minute and a half of one core
def test_every_fault_once_and_no_wrong_resume() -> None:
    done = storm("--short", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["wrong"]) == (0, []), done.stderr
    stages = {name.rpartition(": ")[2] for name in found["faults"] if name.startswith("kill -9")}
    assert stages >= {stage.value for stage in Stage}
    assert found["runs"] == len(found["faults"])
    # Each outcome is one that a fault has, so none of them is left without a look.
    assert set(found["outcomes"]) == {
        "ridden out", "resumed", "walked back", "from the store", "stopped, said why", "refused"
    }  # fmt: skip
