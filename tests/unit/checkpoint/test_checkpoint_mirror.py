"""The copy in another store: made in the background, used when the run folder's own is missing or damaged."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from checkpoint_helpers import fill, flip_byte, make_facts

from lmbatch.checkpoint import Checkpoints
from lmbatch.checkpoint.pins import is_pinned, pin, unpin
from lmbatch.errors import CheckpointError, StoreError, StoreFullError
from lmbatch.store import LocalStore, open_store


class Bucket(LocalStore):
    """The mirror's store. ``order`` is what was written, in order; keys with ``refuse`` in them are refused."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.order: list[str] = []
        self.refuse: str | None = None

    def put_file(self, key: str, path: Path) -> None:
        if self.refuse is not None and self.refuse in key:
            raise StoreError(f"{self.uri}/{key}: the bucket is closed")
        self.order.append(key)
        super().put_file(key, path)

    def publish(self, key: str, data: bytes) -> bool:
        self.order.append(key)
        return super().publish(key, data)


class UnreachableBucket(Bucket):
    def list(self, prefix: str = ""):
        raise StoreError("no route to the bucket")


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path / "bucket")


class Gate(Bucket):
    """Lets the first file of an upload in when it is opened."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.entered, self.opened = threading.Event(), threading.Event()

    def put_file(self, key: str, path: Path) -> None:
        self.entered.set()
        assert self.opened.wait(60)
        super().put_file(key, path)


@pytest.fixture
def gate(mirrored: Checkpoints, tmp_path: Path) -> Gate:
    """The mirror's store instead of the bucket."""
    closed = Gate(tmp_path / "gate")
    assert mirrored._mirror is not None
    mirrored._mirror.store = closed
    return closed


@pytest.fixture
def mirrored(run_dir: Path, bucket: Bucket) -> Checkpoints:
    return Checkpoints(LocalStore(run_dir), mirror=bucket)


def save_all(checkpoints: Checkpoints, *steps: int) -> Path:
    for step in steps:
        saved = checkpoints.save(make_facts(step), fill(step))
        checkpoints.close()
    return saved.folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_payload_first_receipt_last_and_the_same_bytes(mirrored, run_dir, bucket):
    save_all(mirrored, 10)
    assert bucket.order[-1] == "checkpoints/step-00000010/receipt.json"
    assert len(bucket.order) == 3
    assert content(bucket.root) == content(run_dir)


def test_training_does_not_wait_for_the_upload(mirrored, bucket, monkeypatch):
    may_go_on = threading.Event()
    put_file = bucket.put_file
    monkeypatch.setattr(bucket, "put_file", lambda key, path: may_go_on.wait() and put_file(key, path))
    mirrored.save(make_facts(10), fill(10))  # would hang here
    assert not bucket.order
    may_go_on.set()
    mirrored.close()
    assert len(bucket.order) == 3


def test_a_missing_run_folder_is_filled_from_the_mirror(mirrored, run_dir, bucket):
    before = content(save_all(mirrored, 10, 20))
    shutil.rmtree(run_dir)
    found, refusals = Checkpoints(LocalStore(run_dir), mirror=bucket).newest_valid()
    assert (found.step, refusals) == (20, [])
    assert content(found.folder) == before
    assert Checkpoints(LocalStore(run_dir)).newest_valid()[0] == found


def test_a_damaged_checkpoint_is_repaired_from_the_mirror(mirrored, run_dir):
    folder = save_all(mirrored, 10, 20)
    before = content(folder)
    flip_byte(folder / "model.safetensors")
    found, (refusal,) = mirrored.newest_valid()
    assert (found.step, found.folder, content(folder)) == (20, folder, before)
    assert (refusal.step, refusal.kind) == (20, "damaged")
    assert mirrored.retire([refusal]) == []
    assert mirrored.newest_valid() == (found, [])


def test_both_damaged_walks_back_and_says_both(mirrored, run_dir, bucket):
    folder = save_all(mirrored, 10, 20)
    for root in (run_dir, bucket.root):
        flip_byte(root / folder.relative_to(run_dir) / "model.safetensors")
    found, refusals = mirrored.newest_valid()
    assert found.step == 10
    assert [refusal.place for refusal in refusals] == [LocalStore(run_dir).uri, bucket.uri]


def test_a_mirror_that_misses_a_file_is_damaged(mirrored, run_dir, bucket):
    folder = save_all(mirrored, 10, 20)
    (bucket.root / folder.relative_to(run_dir) / "parts/extra.json").unlink()
    shutil.rmtree(run_dir)
    found, (refusal,) = mirrored.newest_valid()
    assert found.step == 10
    assert refusal.kind == "damaged"
    assert "extra.json" in refusal.reason


def test_a_step_that_both_lost_is_saved_and_mirrored_again(mirrored, run_dir, bucket):
    folder = save_all(mirrored, 10, 20)
    for root in (run_dir, bucket.root):
        flip_byte(root / folder.relative_to(run_dir) / "model.safetensors")
    mirrored.retire(mirrored.newest_valid()[1])
    before = content(save_all(mirrored, 20))
    assert list((bucket.root / "checkpoints/step-00000020").glob("receipt.damaged-*.json"))
    shutil.rmtree(run_dir)
    found, _ = mirrored.newest_valid()
    assert (found.step, content(found.folder)) == (20, before)


def test_another_runs_mirror_is_not_overwritten(mirrored, run_dir, bucket, tmp_path):
    save_all(mirrored, 10)
    before = content(bucket.root)
    other = Checkpoints(LocalStore(tmp_path / "other"), mirror=bucket)
    other.save(make_facts(10, config="sha256:other"), fill(10))
    with pytest.raises(CheckpointError, match="belongs to another run"):
        other.close()
    assert content(bucket.root) == before


def test_an_upload_that_failed_is_told_at_once_and_stops_no_save(run_dir, bucket):
    told = threading.Event()
    mirrored = Checkpoints(LocalStore(run_dir), mirror=bucket, on_failure=told.set)
    bucket.refuse = "model"
    mirrored.check_upload()
    mirrored.save(make_facts(10), fill(10))
    assert told.wait(60)
    with pytest.raises(CheckpointError, match="the bucket is closed") as caught:
        mirrored.check_upload()
    assert "save.store" in caught.value.remedy
    mirrored.check_upload()  # said once
    mirrored.save(make_facts(20), fill(20))
    with pytest.raises(CheckpointError, match="the bucket is closed"):
        mirrored.close()
    mirrored.close()
    assert Checkpoints(LocalStore(run_dir)).newest_valid()[0].step == 20
    assert not list(bucket.root.rglob("receipt.json"))


def test_after_an_upload_that_failed_the_one_that_waits_has_its_turn(mirrored, run_dir, gate):
    mirrored.save(make_facts(10), fill(10))
    gate.entered.wait(60)
    gate.refuse = "step-00000010"
    mirrored.save(make_facts(20), fill(20))
    gate.opened.set()
    with pytest.raises(CheckpointError, match="the bucket is closed"):
        mirrored.close()
    assert Checkpoints(gate).newest_valid()[0].step == 20


def test_leaving_the_block_waits_for_the_upload(run_dir, bucket):
    with Checkpoints(LocalStore(run_dir), mirror=bucket) as checkpoints:
        checkpoints.save(make_facts(10), fill(10))
    assert bucket.exists("checkpoints/step-00000010/receipt.json")
    bucket.refuse = "model"
    with pytest.raises(CheckpointError), Checkpoints(LocalStore(run_dir), mirror=bucket) as checkpoints:
        checkpoints.save(make_facts(20), fill(20))


def test_a_failed_upload_does_not_hide_the_error_of_the_block(run_dir, bucket):
    bucket.refuse = "model"

    def fail() -> None:
        with Checkpoints(LocalStore(run_dir), mirror=bucket) as checkpoints:
            checkpoints.save(make_facts(30), fill(30))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_the_mirror_keeps_as_many_and_deletes_receipts_first(mirrored, bucket, monkeypatch):
    deleted: list[str] = []
    delete = bucket.delete
    monkeypatch.setattr(bucket, "delete", lambda key: (deleted.append(key), delete(key)))
    save_all(mirrored, 10, 20, 30)
    kept = {key.split("/")[0] for key in content(bucket.root / "checkpoints")}
    assert kept == {"step-00000020", "step-00000030"}
    assert deleted[0] == "checkpoints/step-00000010/receipt.json"
    assert len(deleted) == 3


def test_a_mirror_with_a_hole_does_not_count_towards_what_is_kept(mirrored, run_dir, bucket):
    folder = save_all(mirrored, 10, 20)
    (bucket.root / folder.relative_to(run_dir) / "parts/extra.json").unlink()
    save_all(mirrored, 30)
    assert bucket.exists("checkpoints/step-00000010/receipt.json")


def test_an_unreachable_mirror_stops_a_run_that_has_nothing_else(run_dir, tmp_path, save):
    away = UnreachableBucket(tmp_path / "bucket")
    with pytest.raises(StoreError, match="no route"):
        Checkpoints(LocalStore(run_dir), mirror=away).newest_valid()
    save(10)
    found, _ = Checkpoints(LocalStore(run_dir), mirror=away).newest_valid()
    assert found.step == 10


def test_a_full_disk_while_fetching_is_an_error_not_a_refusal(mirrored, run_dir, bucket, monkeypatch):
    save_all(mirrored, 10)
    shutil.rmtree(run_dir)

    def full(key: str, path: Path) -> None:
        raise StoreFullError(f"{path}: no space")

    monkeypatch.setattr(bucket, "get_file", full)
    with pytest.raises(StoreFullError):
        mirrored.newest_valid()


def test_object_storage_is_a_mirror(run_dir, s3_uri):
    bucket = open_store(s3_uri)
    with Checkpoints(LocalStore(run_dir), mirror=bucket) as checkpoints:
        before = content(save_all(checkpoints, 10, 20, 30))
    steps = {info.key.split("/")[1] for info in bucket.list("checkpoints/")}
    assert steps == {"step-00000020", "step-00000030"}
    shutil.rmtree(run_dir)
    found, refusals = Checkpoints(LocalStore(run_dir), mirror=bucket).newest_valid()
    assert (found.step, refusals) == (30, [])
    assert content(found.folder) == before


def test_the_newest_of_those_that_wait_is_uploaded_and_retention_spares_what_is_read(mirrored, run_dir, gate):
    mirrored.save(make_facts(10), fill(10))
    assert gate.entered.wait(60)
    for step in (20, 30, 40):  # committed although the upload before them is still under way
        mirrored.save(make_facts(step), fill(step))
    assert gate.order == []
    assert Checkpoints(LocalStore(run_dir)).verify(10) == []
    assert [summary.step for summary in mirrored.list()] == [10, 30, 40]
    gate.opened.set()
    mirrored.close()
    assert [summary.step for summary in Checkpoints(gate).list()] == [10, 40]
    assert Checkpoints(gate).verify(10) == Checkpoints(gate).verify(40) == []
    mirrored.save(make_facts(50), fill(50))
    assert [summary.step for summary in mirrored.list()] == [40, 50]
    mirrored.close()


def test_an_upload_is_given_up_when_patience_ends(mirrored, run_dir, gate, caplog):
    mirrored.save(make_facts(10), fill(10))
    mirrored.close(patience=0.01)  # would hang here
    assert "is given up" in caplog.text
    assert Checkpoints(LocalStore(run_dir)).newest_valid()[0].step == 10
    assert not list(gate.root.rglob("receipt.json"))
    gate.opened.set()
    mirrored.close()


def test_what_an_upload_took_is_told(run_dir, bucket):
    told = []
    with Checkpoints(LocalStore(run_dir), mirror=bucket, on_upload=lambda *one: told.append(one)) as checkpoints:
        save_all(checkpoints, 10, 20)
    assert [step for step, _ in told] == [10, 20]
    assert all(seconds > 0 for _, seconds in told)


def test_bytes_that_change_on_the_way_down_are_fetched_again(mirrored, run_dir, bucket, monkeypatch):
    before = content(save_all(mirrored, 10))
    shutil.rmtree(run_dir)
    get_file, spoilt = bucket.get_file, []

    def flips_once(key: str, path: Path) -> None:
        get_file(key, path)
        if "model" in key and not spoilt:
            spoilt.append(key)
            flip_byte(path)

    monkeypatch.setattr(bucket, "get_file", flips_once)
    found, refusals = mirrored.newest_valid()
    assert (found.step, refusals) == (10, [])
    assert spoilt
    assert content(found.folder) == before


def test_damaged_copies_do_not_take_the_place_of_good_ones_after_a_walk_back(mirrored, run_dir, bucket):
    """By their sizes 20 and 30 look whole: kept as the newest two, they would cost the mirror every good copy."""
    mirrored = Checkpoints(LocalStore(run_dir), keep=3, mirror=bucket)
    save_all(mirrored, 10, 20, 30)
    for step in (20, 30):
        for root in (run_dir, bucket.root):
            (weights,) = (root / f"checkpoints/step-000000{step}").rglob("model.safetensors")
            flip_byte(weights)
    again = Checkpoints(LocalStore(run_dir), mirror=bucket)
    found, refusals = again.newest_valid()
    assert found.step == 10
    again.retire(refusals)
    save_all(again, 15, 18)
    shutil.rmtree(run_dir)
    assert Checkpoints(LocalStore(run_dir), mirror=bucket).newest_valid()[0].step == 18
    assert {step for step in (15, 18) if bucket.exists(f"checkpoints/step-000000{step}/receipt.json")} == {15, 18}


def test_what_was_just_uploaded_stays_even_if_older_than_what_looks_whole(mirrored, bucket, run_dir):
    save_all(mirrored, 20, 30)
    shutil.rmtree(run_dir)
    save_all(mirrored, 10)
    assert bucket.exists("checkpoints/step-00000010/receipt.json")


def test_the_mirror_keeps_the_best_every_so_many_and_the_pinned_too(run_dir, bucket):
    losses: dict[int, float] = {}
    rule = {"keep": 2, "keep_every": 40, "keep_best": 1, "losses": lambda: losses}
    with Checkpoints(LocalStore(run_dir), mirror=bucket, **rule) as checkpoints:
        for step in range(10, 110, 10):
            checkpoints.save(make_facts(step), fill(step))
            losses[step] = abs(step - 20)
            checkpoints.close()
            if step == 50:
                for store in (bucket, LocalStore(run_dir)):
                    pin(store, 50, "the one of the paper")
    for root in (bucket.root, run_dir):
        kept = {int(key.split("/")[0][5:]) for key in content(root / "checkpoints")}
        assert kept == {20, 40, 50, 80, 90, 100}


def test_a_pin_comes_back_with_its_checkpoint(mirrored, run_dir, bucket):
    save_all(mirrored, 10)
    pin(bucket, 10, "好的")
    shutil.rmtree(run_dir)
    mirrored.newest_valid()
    assert is_pinned(LocalStore(run_dir), 10)
    unpin(LocalStore(run_dir), 10)
    assert not is_pinned(LocalStore(run_dir), 10)


def test_the_payload_of_a_pinned_one_stays_though_its_receipt_was_set_aside(mirrored, bucket):
    save_all(mirrored, 10)
    pin(bucket, 10)
    bucket.delete("checkpoints/step-00000010/receipt.json")
    for step in (20, 30, 40):
        save_all(mirrored, step)
    assert any("model" in key for key in content(bucket.root / "checkpoints/step-00000010"))
    assert not content(bucket.root / "checkpoints").keys() & {"step-00000020/receipt.json"}


def test_what_was_committed_and_never_copied_is_copied_after_a_resume(run_dir, bucket):
    Checkpoints(LocalStore(run_dir)).save(make_facts(10), fill(10))  # its writer died before the upload
    with Checkpoints(LocalStore(run_dir), mirror=bucket) as resumed:
        resumed.copy_if_missing(resumed.newest_valid()[0].step)
    uploaded = list(bucket.order)
    with Checkpoints(LocalStore(run_dir), mirror=bucket) as again:
        again.copy_if_missing(again.newest_valid()[0].step)
    assert bucket.order == uploaded
    shutil.rmtree(run_dir)
    assert Checkpoints(LocalStore(run_dir), mirror=bucket).newest_valid()[0].step == 10


def test_a_store_that_is_away_does_not_keep_a_run_from_going_on(run_dir, tmp_path):
    Checkpoints(LocalStore(run_dir)).save(make_facts(10), fill(10))
    with Checkpoints(LocalStore(run_dir), mirror=UnreachableBucket(tmp_path / "away")) as resumed:
        resumed.copy_if_missing(resumed.newest_valid()[0].step)
