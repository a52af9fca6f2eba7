"""kill -9 at every point of a save: the next process finds the right checkpoint, and saving goes on."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lmbatch.checkpoint import CheckpointFacts, Checkpoints
from lmbatch.checkpoint.stages import Stage
from lmbatch.store import LocalStore

CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_checkpoint_kill as here
from lmbatch.checkpoint import Checkpoints, stages
from lmbatch.store import LocalStore

def die(reached):
    if reached.value == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

run_dir = Path(sys.argv[2])
mirror = LocalStore(Path(sys.argv[5])) if len(sys.argv) > 5 else None
checkpoints = Checkpoints(LocalStore(run_dir), mirror=mirror)
stages.on_stage = die
if sys.argv[4] == "fetch":
    checkpoints.newest_valid()
elif sys.argv[3] == "half a file":
    checkpoints.save(here.facts(int(sys.argv[4])), here.die_with_half_a_file)
else:
    checkpoints.save(here.facts(int(sys.argv[4])), here.fill(int(sys.argv[4])))
    checkpoints.close()
"""

HALF_A_FILE = "half a file"
EXPECTED = {
    Stage.BEFORE_PAYLOAD.value: 20,
    HALF_A_FILE: 20,
    Stage.MID_PAYLOAD.value: 20,
    Stage.AFTER_PAYLOAD.value: 20,
    Stage.BEFORE_RECEIPT.value: 20,
    Stage.AFTER_RECEIPT.value: 30,
    Stage.RECEIPT_DELETED.value: 30,
}
# What the mirror holds of steps 30 and 40 after a kill in the upload of 40.
UPLOADS = {
    Stage.BEFORE_UPLOAD.value: 30,
    Stage.MID_UPLOAD.value: 30,
    Stage.AFTER_UPLOAD.value: 30,
    Stage.AFTER_UPLOAD_RECEIPT.value: 40,
    Stage.UPLOAD_RECEIPT_DELETED.value: 40,
}
FETCHES = [Stage.MID_FETCH.value, Stage.MID_PAYLOAD.value, Stage.AFTER_FETCH.value]


def facts(step: int) -> CheckpointFacts:
    return CheckpointFacts(
        step=step, samples_consumed=step * 4, tokens_consumed=step * 64, world_size=1, config="sha256:c",
        manifest_digest="sha256:m", code_version="0", precision="fp32",
    )  # fmt: skip


def fill(step: int):
    def write(folder: Path) -> None:
        for name in ("a.safetensors", "b.safetensors"):
            (folder / name).write_bytes(f"{name} of step {step}".encode() * 1000)

    return write


def die_with_half_a_file(folder: Path) -> None:
    import os

    with (folder / "a.safetensors").open("wb", buffering=0) as file:
        file.write(b"half")
        os.kill(os.getpid(), signal.SIGKILL)


def killed(run_dir: Path, stage: str, what: str, *mirror: Path) -> None:
    arguments = [str(Path(__file__).parent), str(run_dir), stage, what, *map(str, mirror)]
    child = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr


def assert_found(checkpoints: Checkpoints, step: int) -> None:
    found, _ = checkpoints.newest_valid()
    assert found is not None
    assert (found.step, found.facts) == (step, facts(step))
    assert (found.folder / "b.safetensors").read_bytes() == f"b.safetensors of step {step}".encode() * 1000


def assert_clean(run_dir: Path) -> None:
    """No torn attempt, no lock, no temporary file: only committed steps, each with one payload."""
    for folder in (run_dir / "checkpoints").iterdir():
        receipt = json.loads((folder / "receipt.json").read_text())
        assert sorted(path.name for path in folder.iterdir()) == [receipt["attempt"], "receipt.json"]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    checkpoints = Checkpoints(LocalStore(tmp_path / "run"))
    for step in (10, 20):
        checkpoints.save(facts(step), fill(step))
    return tmp_path / "run"


def test_every_stage_is_killed_at():
    assert {stage.value for stage in Stage} | {HALF_A_FILE} == {*EXPECTED, *UPLOADS, *FETCHES}


@pytest.mark.parametrize(("stage", "step"), EXPECTED.items())
def test_killed_while_saving(run_dir, stage, step):
    killed(run_dir, stage, "30")
    assert_found(Checkpoints(LocalStore(run_dir)), step)
    for summary in Checkpoints(LocalStore(run_dir)).list():  # a receipt is never without its payload
        assert summary.state == "torn" or Checkpoints(LocalStore(run_dir)).verify(summary.step) == []

    resumed = Checkpoints(LocalStore(run_dir))
    for later in (30, 40):  # 30 again: what the interrupted run would have done
        resumed.save(facts(later), fill(later))
        assert_found(resumed, later)
    assert [summary.step for summary in resumed.list()] == [30, 40]
    assert resumed.verify(30) == resumed.verify(40) == []
    assert_clean(run_dir)


@pytest.mark.parametrize("stage", EXPECTED)
def test_killed_twice_in_a_row(run_dir, stage):
    killed(run_dir, stage, "30")
    killed(run_dir, Stage.MID_PAYLOAD.value, "40")
    assert_found(Checkpoints(LocalStore(run_dir)), EXPECTED[stage])


@pytest.mark.parametrize("stage", FETCHES)
def test_killed_while_fetching_from_the_mirror(run_dir, tmp_path, stage):
    mirror = LocalStore(tmp_path / "mirror")
    with Checkpoints(LocalStore(run_dir), mirror=mirror) as checkpoints:
        checkpoints.save(facts(30), fill(30))
    shutil.rmtree(run_dir)
    killed(run_dir, stage, "fetch", tmp_path / "mirror")
    assert Checkpoints(LocalStore(run_dir)).newest_valid()[0] is None
    again = Checkpoints(LocalStore(run_dir), mirror=mirror)
    assert_found(again, 30)
    again.save(facts(40), fill(40))
    again.close()
    assert_clean(run_dir)


@pytest.mark.parametrize(("stage", "step"), UPLOADS.items())
def test_killed_while_uploading(run_dir, tmp_path, stage, step):
    """A payload without a receipt in the mirror is nothing, and does not stand in the way of the next upload."""
    mirror = LocalStore(tmp_path / "mirror")
    with Checkpoints(LocalStore(run_dir), mirror=mirror) as checkpoints:
        for earlier in (20, 30):
            checkpoints.save(facts(earlier), fill(earlier))
    killed(run_dir, stage, "40", tmp_path / "mirror")
    shutil.rmtree(run_dir)
    resumed = Checkpoints(LocalStore(run_dir), mirror=mirror)
    assert_found(resumed, step)
    resumed.save(facts(40), fill(40))
    resumed.close()
    shutil.rmtree(run_dir)
    assert_found(Checkpoints(LocalStore(run_dir), mirror=mirror), 40)
