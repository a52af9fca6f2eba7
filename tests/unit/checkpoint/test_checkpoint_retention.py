"""What a save deletes, and what it must not."""

from __future__ import annotations

import shutil
import subprocess
import sys

from checkpoint_helpers import fill, flip_byte, make_facts

from lmbatch.checkpoint import Checkpoints
from lmbatch.checkpoint.lock import FileLock
from lmbatch.checkpoint.pins import pin, unpin
from lmbatch.store import LocalStore


def steps(checkpoints: Checkpoints) -> list[int]:
    return [summary.step for summary in checkpoints.list()]


def test_the_newest_are_kept_and_folders_go(checkpoints, run_dir, save):
    save(10, 20)
    saved = checkpoints.save(make_facts(30), fill(30))
    assert saved.removed == (10,)
    assert steps(checkpoints) == [20, 30]
    assert not (run_dir / "checkpoints/step-00000010").exists()


def test_keep_is_respected(run_dir):
    checkpoints = Checkpoints(LocalStore(run_dir), keep=3)
    for step in (10, 20, 30, 40):
        checkpoints.save(make_facts(step), fill(step))
    assert steps(checkpoints) == [20, 30, 40]


def test_a_damaged_one_does_not_count(checkpoints, save):
    """Two *valid* ones are kept: with 20 damaged, deleting 10 would leave a single good one."""
    save(10)
    flip_byte(save(20) / "model.safetensors")
    save(30)
    assert steps(checkpoints) == [10, 20, 30]
    save(40)
    assert steps(checkpoints) == [30, 40]


def test_a_damaged_one_does_not_count_for_a_new_process_either(checkpoints, run_dir, save):
    save(10)
    flip_byte(save(20) / "model.safetensors")
    fresh = Checkpoints(LocalStore(run_dir))
    fresh.save(make_facts(30), fill(30))
    assert steps(fresh) == [10, 20, 30]


def test_leftovers_of_dead_attempts_go(checkpoints, run_dir, save):
    torn = run_dir / "checkpoints/step-00000015/attempt-dead"
    torn.mkdir(parents=True)
    (torn / "model.safetensors").write_bytes(b"half")
    torn.with_name("attempt-dead.lock").touch()
    beside = run_dir / "checkpoints/step-00000020/attempt-beef"
    shutil.copytree(torn, beside)
    save(20)
    save(30)
    assert not torn.parent.exists()
    assert not beside.exists()
    assert not list(run_dir.rglob("*.lock"))
    assert checkpoints.verify(20) == []


def test_an_attempt_in_progress_is_never_touched(checkpoints, run_dir, save):
    """The other process is in the middle of its payload while this one commits and sweeps."""
    script = (
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str((__file__.rpartition('/'))[0])!r})\n"
        "from checkpoint_helpers import make_facts\n"
        "from lmbatch.checkpoint import Checkpoints; from lmbatch.store import LocalStore\n"
        "def write(folder):\n"
        "    (folder / 'a').write_bytes(b'a'); print('writing', flush=True)\n"
        "    sys.stdin.read(); (folder / 'b').write_bytes(b'b')\n"
        f"print(Checkpoints(LocalStore(Path({str(run_dir)!r}))).save(make_facts(15), write).folder)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True) as child:
        assert child.stdout.readline() == "writing\n"
        save(20, 30)
        out, _ = child.communicate()
    assert child.returncode == 0
    assert out.strip()
    assert checkpoints.verify(20) == checkpoints.verify(30) == []


def test_a_sweep_looks_at_the_receipt_under_the_lock(checkpoints, save, monkeypatch):
    """The writer commits after the sweep has listed its folder, and before the sweep gets the lock."""
    folder = save(20)
    receipt = folder.parent / "receipt.json"
    data = receipt.read_bytes()
    receipt.unlink()
    take = FileLock.take

    def commits_first(self: FileLock) -> bool:
        if self.path.name.startswith(folder.name):
            receipt.write_bytes(data)
        return take(self)

    monkeypatch.setattr(FileLock, "take", commits_first)
    save(30)
    assert checkpoints.verify(20) == []


def test_a_newer_format_is_not_ours_to_delete(checkpoints, save):
    folder = save(10)
    receipt = folder.parent / "receipt.json"
    receipt.write_text(receipt.read_text().replace('"format_version": 1', '"format_version": 2'))
    save(20, 30, 40)
    assert steps(checkpoints) == [10, 30, 40]
    assert (folder / "model.safetensors").exists()


def test_what_a_killed_publish_left_goes_with_its_step(checkpoints, run_dir, save):
    temporary = save(10).parent / ".lmbatch-tmp-0011"
    temporary.write_bytes(b"half a receipt")
    save(20, 30)
    assert not temporary.parent.exists()


def test_a_damaged_pinned_one_stays_for_who_wants_to_repair_it(checkpoints, run_dir, save):
    flip_byte(save(10) / "model.safetensors")
    pin(LocalStore(run_dir), 10)
    save(20, 30, 40)
    assert steps(checkpoints) == [10, 30, 40]
    unpin(LocalStore(run_dir), 10)
    save(50)
    assert steps(checkpoints) == [40, 50]
    assert not (run_dir / "checkpoints/step-00000010").exists()


def test_a_half_deleted_one_is_not_the_best(run_dir):
    losses = {10: 1.0, 20: 2.0}
    checkpoints = Checkpoints(LocalStore(run_dir), keep_best=1, losses=lambda: losses)
    for step in (10, 20, 30):
        checkpoints.save(make_facts(step), fill(step))
    next((run_dir / "checkpoints/step-00000010").rglob("model.safetensors")).unlink()
    for step in (40, 50):
        checkpoints.save(make_facts(step), fill(step))
    assert steps(checkpoints) == [20, 40, 50]
