"""Verification finds whatever is wrong with the bytes, and repair does again only that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmbatch.errors import PlanError
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


def test_a_receipt_that_still_adds_up_is_found_by_its_seal(base: Path, store: Store) -> None:
    """A reason of another name changes no sum; without the seal it would only be known that something is wrong."""
    whole = contents(store)
    key = next(info.key for info in store.list("receipts/") if b"missing_text" in store.read(info.key))
    store.put(key, store.read(key).replace(b"missing_text", b"missing_test"))
    report = verify_store(store)
    assert "does not give its seal" in report.problems[Path(key).stem][0]
    repair(base, store, report)
    assert contents(store) == whole


@pytest.mark.parametrize(("field", "value"), [("path", "other.json"), ("start", 1), ("end", 10**9), ("records", 10**6)])
def test_a_receipt_of_other_ranges_than_planned_is_found(store: Store, field: str, value: object) -> None:
    last = list(store.list("receipts/"))[-1].key
    receipt = json.loads(store.read(last))
    receipt["pieces"][-1][field] = value
    del receipt["seal"]  # as older versions wrote it
    store.put(last, json.dumps(receipt).encode())
    problems = str(verify_store(store).problems)
    assert ("that were planned" if field != "records" else "number of records") in problems


def test_a_damaged_plan_is_written_anew_where_receipts_are_of_it(base: Path, store: Store) -> None:
    whole = contents(store)
    plan = store.read("plan.json")
    store.put("plan.json", plan[:100])
    with pytest.raises(PlanError, match="same `lmbatch preprocess` again"):
        load_plan(store)
    with pytest.raises(PlanError, match="plan.json"):  # another job may not take its place
        preprocess_here(config_for(base, split={"salt": "other"}))
    preprocess_here(config_for(base))
    assert store.read("plan.json") == plan
    assert contents(store) == whole


def test_a_damaged_plan_of_no_known_job_stays_refused(base: Path, store: Store) -> None:
    flip(store, "plan.json", 0.0)
    for info in list(store.list("receipts/")):
        store.delete(info.key)
    with pytest.raises(PlanError, match="not a plan"):
        preprocess_here(config_for(base))


def repair(base: Path, store: Store, report: StoreReport) -> None:
    """What `lmbatch repair` does, in this process."""
    repair_store(store, load_plan(store), report)
    preprocess_here(config_for(base))
