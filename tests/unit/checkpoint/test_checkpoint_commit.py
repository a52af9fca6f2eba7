"""Saving: what stands on the disk afterwards, and what is left when it fails."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from checkpoint_helpers import fill, flip_byte, make_facts

from lmbatch.checkpoint import Checkpoints, commit, files, local, stages
from lmbatch.checkpoint.receipt import CheckpointReceipt, parse_receipt
from lmbatch.errors import CheckpointError, StoreFullError
from lmbatch.store import LocalStore


def receipt_of(run_dir: Path, step: int) -> CheckpointReceipt:
    receipt = parse_receipt((run_dir / f"checkpoints/step-{step:08d}/receipt.json").read_bytes(), step)
    assert isinstance(receipt, CheckpointReceipt)
    return receipt


def test_a_saved_checkpoint_has_payload_receipt_and_facts(checkpoints, run_dir):
    facts = make_facts(40, loader={"seed": 7}, config_identity={"lr": 3e-4})
    saved = checkpoints.save(facts, fill(40))

    assert saved.folder.parent == run_dir / "checkpoints" / "step-00000040"
    assert saved.new
    receipt = receipt_of(run_dir, 40)
    assert receipt.facts == facts
    assert [Path(file.key).relative_to("checkpoints/step-00000040", receipt.attempt) for file in receipt.files] == [
        Path("model.safetensors"),
        Path("parts/extra.json"),
    ]
    assert saved.bytes == sum(file.size for file in receipt.files) == 1400 + 12
    found, refusals = checkpoints.newest_valid()
    assert (found.step, found.folder, found.facts, refusals) == (40, saved.folder, facts, [])
    assert not list(run_dir.rglob("*.lock"))


def test_every_file_and_folder_is_on_the_disk_before_the_receipt(checkpoints, run_dir, monkeypatch):
    """The order of the system calls is the protocol: a power cut after the receipt must find the payload."""
    events: list[str] = []

    def synced(path: Path) -> None:
        events.append(str(path.relative_to(run_dir)))

    monkeypatch.setattr(files, "sync", synced)
    monkeypatch.setattr(commit, "sync", synced)
    monkeypatch.setattr(stages, "on_stage", lambda stage: events.append(stage.value))
    folder = checkpoints.save(make_facts(40), fill(40)).folder.relative_to(run_dir)

    before = set(events[: events.index("before-receipt")])
    payload = {folder / "model.safetensors", folder / "parts/extra.json", folder / "parts", folder}
    parents = {folder.parent, folder.parent.parent, Path()}
    assert {str(path) for path in payload | parents} <= before
    after = events[events.index("before-receipt") : events.index("after-receipt")]
    assert str(folder.parent) in after


def test_saving_the_same_step_again_changes_nothing(checkpoints, run_dir, save):
    first = save(40)
    again = checkpoints.save(make_facts(40), fill(40))
    assert (again.folder, again.new) == (first, False)
    assert len(list((run_dir / "checkpoints/step-00000040").iterdir())) == 2


def test_another_checkpoint_of_the_same_step_is_refused(checkpoints, save):
    save(40)
    with pytest.raises(CheckpointError, match="step 40 stands there"):
        checkpoints.save(make_facts(40, config="sha256:other"), fill(40))
    assert checkpoints.verify(40) == []


def test_a_damaged_step_is_set_aside_when_it_is_saved_again(checkpoints, run_dir, save):
    flip_byte(save(40) / "model.safetensors")
    saved = checkpoints.save(make_facts(40), fill(40))
    assert saved.new
    assert checkpoints.verify(40) == []
    assert (run_dir / "checkpoints/step-00000040/receipt.damaged-1.json").exists()


def test_an_empty_payload_is_refused(checkpoints):
    with pytest.raises(CheckpointError, match="nothing was written"):
        checkpoints.save(make_facts(40), lambda folder: None)
    assert checkpoints.newest_valid() == (None, [])


@pytest.mark.parametrize("how", ["os error", "safetensors"])
def test_a_full_disk_is_named_and_costs_no_older_checkpoint(checkpoints, run_dir, save, how):
    save(10, 20)

    def write(folder: Path) -> None:
        (folder / "half").write_bytes(b"half")
        if how == "os error":
            with Path("/dev/full").open("wb", buffering=0) as full:
                full.write(b"x")
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(StoreFullError, match=r"step-00000030.*No space left") as caught:
        checkpoints.save(make_facts(30), write)
    assert caught.value.remedy
    assert [summary.step for summary in checkpoints.list()] == [10, 20]
    assert checkpoints.verify(10) == checkpoints.verify(20) == []
    assert not list(run_dir.rglob("half"))  # the space is given back
    save(30)
    assert checkpoints.newest_valid()[0].step == 30


def test_a_writer_that_fails_passes_through_and_leaves_nothing(checkpoints, run_dir):
    def write(folder: Path) -> None:
        (folder / "half").write_bytes(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        checkpoints.save(make_facts(30), write)
    assert not list(run_dir.rglob("half"))


class DoubtfulStore(LocalStore):
    """Commits, and then says that it failed."""

    def publish(self, key: str, data: bytes) -> bool:
        super().publish(key, data)
        raise OSError(5, "the answer was lost")


def test_a_publish_that_won_but_raised_keeps_its_payload(run_dir):
    with pytest.raises(CheckpointError, match="answer was lost"):
        Checkpoints(DoubtfulStore(run_dir)).save(make_facts(40), fill(40))
    found, _ = Checkpoints(LocalStore(run_dir)).newest_valid()
    assert found.step == 40


class RacingStore(LocalStore):
    """Another process commits the step just before us."""

    def publish(self, key: str, data: bytes) -> bool:
        other = json.loads(data) | {"attempt": "attempt-ffff"}
        super().publish(key, json.dumps(other).encode())
        return super().publish(key, data)


def test_the_loser_of_a_race_removes_its_payload_and_says_so(run_dir):
    with pytest.raises(CheckpointError, match="another attempt has committed"):
        Checkpoints(RacingStore(run_dir)).save(make_facts(40), fill(40))
    assert [path.name for path in (run_dir / "checkpoints/step-00000040").iterdir()] == ["receipt.json"]


def test_only_a_local_store_can_be_the_primary():
    class Remote(LocalStore):
        def local_path(self, key: str) -> None:
            return None

    with pytest.raises(CheckpointError, match="local folder first") as caught:
        Checkpoints(Remote(Path("x")))
    assert "save.store" in caught.value.remedy


def test_fewer_than_two_are_refused(run_dir):
    with pytest.raises(CheckpointError, match="at least two"):
        Checkpoints(LocalStore(run_dir), keep=1)


def test_the_environment_has_no_say_in_the_stages(checkpoints, monkeypatch, save):
    monkeypatch.setattr(os, "environ", {})
    save(1)
    assert stages.on_stage is stages._nothing


def hashed(folder: Path, said: int = 7) -> dict[str, files.Digest]:
    (folder / "model.safetensors").write_bytes(b"weights")
    return {"model.safetensors": files.Digest(said, hashlib.sha256(b"weights").hexdigest())}


def test_what_was_hashed_as_it_was_written_is_not_read_again(checkpoints, run_dir, monkeypatch):
    def read(path: Path) -> str:
        pytest.fail(f"{path} was read")

    with monkeypatch.context() as patch:
        patch.setattr(commit, "sha256_of", read)
        patch.setattr(local, "sha256_of", read)
        for step in (10, 20, 30):  # retention looks at the older ones
            checkpoints.save(make_facts(step), hashed)
    assert [summary.step for summary in checkpoints.list()] == [20, 30]
    assert checkpoints.verify(30) == []
    assert [file.size for file in receipt_of(run_dir, 30).files] == [7]


def test_a_file_that_is_shorter_than_what_was_written_is_not_committed(checkpoints):
    with pytest.raises(CheckpointError, match="has 7 bytes, but 8 were written"):
        checkpoints.save(make_facts(10), lambda folder: hashed(folder, said=8))
    assert checkpoints.newest_valid() == (None, [])
