"""kill -9 at every write of the stages of de-duplication; and bytes of theirs that go bad afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmbatch.launch import open_target
from lmbatch.preprocess import load_plan, receipt_key, repair_store, verify_store
from lmbatch.preprocess.dedup import parse_compare, parse_sign
from lmbatch.store import Store, open_store, to_json
from support.drive import WatchedStore, contents, in_child, kill_at, preprocess_here
from support.duplicates import dedup_config, write_duplicates
from support.wudao import write_tokenizer

SIGKILLED = -9
DEDUP: dict[str, Any] = {"near": {"bands": 4}, "partition_bytes": 20_000}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dedup-kill")
    write_duplicates(folder / "raw", 15)
    write_tokenizer(folder / "tok")
    return folder


def config_at(base: Path, name: str) -> Any:
    return dedup_config(base, DEDUP, store=str(base / name), tasks={"bytes": 14_000})


@pytest.fixture(scope="module")
def undisturbed(base: Path) -> tuple[dict[str, bytes], list[str]]:
    """The bytes of an undisturbed run, and the name of each of its writes in order."""
    config = config_at(base, "undisturbed")
    writes: list[str] = []
    store = WatchedStore(
        open_target(config), lambda number, phase, operation, key: writes.append(key) if phase == "before" else None
    )
    preprocess_here(config, store)  # type: ignore[arg-type]
    return contents(open_store(config.store)), writes


def of_the_stages(key: str) -> bool:
    return key.startswith(("dedup/", "receipts/sign", "receipts/compare"))


def test_every_write_of_both_stages(base: Path, undisturbed: tuple[dict[str, bytes], list[str]]) -> None:
    """Before and after each payload and each receipt: a second run ends with the bytes of an undisturbed one."""
    whole, writes = undisturbed
    numbers = [number for number, key in enumerate(writes) if of_the_stages(key)]
    assert [writes[number].split("-")[0] for number in numbers] == [
        *["dedup/sign", "receipts/sign"] * 3, *["dedup/compare", "receipts/compare"] * 2
    ]  # fmt: skip
    for number in numbers:
        for phase in ("before", "after"):
            config = config_at(base, f"store-{number}-{phase}")
            store = WatchedStore(open_target(config), kill_at(number, phase))
            assert in_child(lambda c=config, s=store: preprocess_here(c, s)) == SIGKILLED, (writes[number], phase)
            left = open_store(config.store)
            assert not verify_store(left).right
            assert in_child(lambda c=config: preprocess_here(c)) == 0, (writes[number], phase)
            assert contents(left) == whole, (writes[number], phase)


@pytest.fixture
def store(base: Path, undisturbed: tuple[dict[str, bytes], list[str]], tmp_path: Path) -> Store:
    """A whole store of its own."""
    copy = open_store(str(tmp_path / "store"))
    original = open_store(str(base / "undisturbed"))
    for info in original.list():
        copy.put(info.key, original.read(info.key))
    assert verify_store(copy).right
    return copy


def mend(base: Path, store: Store) -> list[str]:
    """What `lmbatch repair` does; the units that were withdrawn, round by round."""
    withdrawn: list[str] = []
    for _ in range(3):
        withdrawn += repair_store(store, load_plan(store), verify_store(store)).tasks
        preprocess_here(dedup_config(base, DEDUP, store=store.uri, tasks={"bytes": 14_000}))
        if verify_store(store).right:
            break
    return withdrawn


@pytest.mark.parametrize("unit", ["sign-000001", "compare-0000"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "no receipt", "torn receipt"])
def test_damage_is_found_and_mended_and_nothing_else_is_done_again(
    base: Path, store: Store, undisturbed: tuple[dict[str, bytes], list[str]], unit: str, damage: str
) -> None:
    payload, receipt = next(info.key for info in store.list(f"dedup/{unit}")), receipt_key(unit)
    data = store.read(payload)
    if damage == "flip":
        store.put(payload, data[:9] + bytes([data[9] ^ 1]) + data[10:])
    elif damage == "cut":
        store.put(payload, data[:-3])
    elif damage == "gone":
        store.delete(payload)
    elif damage == "no receipt":
        store.delete(receipt)
    else:
        store.put(receipt, store.read(receipt)[:-40])
    assert list(verify_store(store).problems) == [unit]
    others = {info.key: store.read(info.key) for info in store.list("receipts/") if info.key != receipt}
    assert mend(base, store) == [unit]
    assert verify_store(store).right
    assert contents(store) == undisturbed[0]
    assert {key: store.read(key) for key in others} == others


@pytest.mark.parametrize("unit", ["sign-000001", "compare-0000"])
def test_what_stands_on_other_bytes_is_found_and_done_again(
    base: Path, store: Store, undisturbed: tuple[dict[str, bytes], list[str]], unit: str
) -> None:
    """A stage that is whole in itself, but not what the next one stood on: what follows from it is withdrawn."""
    plan = load_plan(store)
    parse = parse_sign if unit.startswith("sign") else parse_compare
    receipt = parse(store.read(receipt_key(unit)), unit)
    empty = {"key": f"dedup/{unit}-other.bin", "size": 0, "sha256": EMPTY}
    nothing = {"counts": (), "crc32": (), "offset": 0}
    change: dict[str, Any] = {"payload": receipt.payload.model_copy(update=empty)}
    if unit.startswith("sign"):
        regions = tuple(region.model_copy(update=nothing) for region in receipt.regions)  # type: ignore[union-attr]
        change |= {"documents": 0, "regions": regions}
        follows = [f"compare-{number:04d}" for number in range(plan.partitions or 0)]
    else:
        change |= {"tasks": (), "drops": receipt.drops.model_copy(update=nothing)}  # type: ignore[union-attr]
        follows = [task.id for task in plan.tasks]
    store.put(f"dedup/{unit}-other.bin", b"")
    store.put(receipt_key(unit), to_json(receipt.model_copy(update=change)))
    report = verify_store(store)
    assert sorted(report.problems) == sorted(follows)
    assert all("other" in problem for problems in report.problems.values() for problem in problems)
    store.delete(receipt_key(unit))
    assert mend(base, store) == [unit]
    store.delete(f"dedup/{unit}-other.bin")
    assert contents(store) == undisturbed[0]


def test_a_layout_that_does_not_fit_the_payload_is_found(store: Store) -> None:
    receipt = parse_sign(store.read(receipt_key("sign-000000")), "sign")
    first = receipt.regions[0].model_copy(update={"offset": 12})
    changed = receipt.model_copy(update={"regions": (first, *receipt.regions[1:])})
    store.put(receipt_key("sign-000000"), to_json(changed))
    assert "does not begin where" in verify_store(store).problems["sign-000000"][0]
    changed = receipt.model_copy(update={"regions": receipt.regions[:-1]})
    store.put(receipt_key("sign-000000"), to_json(changed))
    assert "its payload has" in verify_store(store).problems["sign-000000"][0]
    store.put(receipt_key("sign-000000"), store.read(receipt_key("sign-000001")))
    assert "belongs to sign-000001" in verify_store(store).problems["sign-000000"][0]


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
