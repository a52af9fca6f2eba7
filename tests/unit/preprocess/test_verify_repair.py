"""Verification finds whatever is wrong with the bytes, and repair does again only that."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmbatch.preprocess import StoreReport, load_plan, receipt_key, repair_store, verify_store
from lmbatch.store import Store, open_store
from support.drive import contents, preprocess_here
from support.wudao import config_for, write_files, write_tokenizer


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_files(tmp_path / "raw")
    (tmp_path / "raw" / "zz-bad.json").write_text('[{"id":1},{"id":2,"content":"good"}]', encoding="utf-8")
    write_tokenizer(tmp_path / "tok")
    preprocess_here(config_for(tmp_path))
    return tmp_path


@pytest.fixture
def store(base: Path) -> Store:
    return open_store(str(base / "store"))


def flip(store: Store, key: str, place: float = 0.5) -> None:
    """Flip one bit of one byte."""
    data = bytearray(store.read(key))
    data[int(len(data) * place)] ^= 0x10
    store.put(key, bytes(data))


def first(store: Store, prefix: str, suffix: str) -> str:
    return next(info.key for info in store.list(prefix) if info.key.endswith(suffix) and info.size)


def test_a_whole_store_is_right(store: Store) -> None:
    report = verify_store(store)
    assert report.right, report.problems
    assert report.tasks == len(load_plan(store).tasks)
    assert report.bytes_read == sum(
        info.size for info in store.list() if info.key.startswith(("shards/", "quarantine/", "profiles/"))
    )


@pytest.mark.parametrize(
    ("prefix", "suffix", "place"),
    [
        ("shards/", ".bin", 0.5),
        ("shards/", ".idx", 0.5),
        ("shards/", ".docs.parquet", 0.5),
        ("quarantine/", ".jsonl", 0.5),
        ("tokenizer/", "tokenizer.json", 0.5),
        ("receipts/", ".json", 0.5),
        ("manifest.json", "", 0.5),
    ],
)
def test_one_flipped_bit_anywhere_is_found_and_repaired(
    base: Path, store: Store, prefix: str, suffix: str, place: float
) -> None:
    whole = contents(store)
    key = first(store, prefix, suffix)
    flip(store, key, place)
    report = verify_store(store)
    assert not report.right
    assert any(Path(key).name.split("-")[0] in str(item) for item in report.to_dict()["problems"].items())
    repair(base, store, report)
    assert verify_store(store).right
    assert contents(store) == whole


@pytest.mark.parametrize("victim", ["receipts/", "shards/train/", "manifest.json", "tokenizer/"])
def test_an_object_that_is_gone_is_found_and_repaired(base: Path, store: Store, victim: str) -> None:
    whole = contents(store)
    store.delete(first(store, victim, ""))
    report = verify_store(store)
    assert not report.right
    repair(base, store, report)
    assert contents(store) == whole


def test_a_receipt_in_the_place_of_another_is_found(store: Store) -> None:
    store.put(receipt_key("task-000001"), store.read(receipt_key("task-000000")))
    assert "belongs to task-000000" in verify_store(store).problems["task-000001"][0]


def test_repair_leaves_good_tasks_alone(base: Path, store: Store) -> None:
    before = {info.key: store.read(info.key) for info in store.list("receipts/")}
    damaged = first(store, "shards/train/", ".bin")
    flip(store, damaged)
    repair(base, store, verify_store(store))
    task = Path(damaged).name[:11]
    changed = [key for key, data in before.items() if store.read(key) != data]
    assert changed == [receipt_key(task)]


def test_repairing_what_is_right_withdraws_nothing(store: Store) -> None:
    assert repair_store(store, load_plan(store), verify_store(store)).tasks == ()
    assert verify_store(store).right


def repair(base: Path, store: Store, report: StoreReport) -> None:
    """What `lmbatch repair` does, in this process."""
    repair_store(store, load_plan(store), report)
    preprocess_here(config_for(base))
