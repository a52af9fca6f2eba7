"""De-duplication end to end: which documents are left, and that nothing but the files and the config decides it."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmbatch.config import DedupConfig, PreprocessConfig, fingerprint
from lmbatch.corpus.duplicates import BAND, DROP, EXACT, PLACE
from lmbatch.errors import CorpusError, PlanError, StoreError
from lmbatch.launch import LocalBackend, run_preprocess
from lmbatch.launch.backend import TaskBatch
from lmbatch.preprocess import Worker, build_manifest, load_plan, read_receipts, receipt_key, stages_of
from lmbatch.preprocess.dedup import SignedTasks, duplicate_clusters, parse_compare, parse_sign
from lmbatch.report import store_status
from lmbatch.store import Manifest, Store, open_store, to_json
from support.drive import contents, prepare, preprocess_here
from support.duplicates import dedup_config, disguised, edited, kept_ids, original, record, write_duplicates
from support.wudao import write_tokenizer

NEAR: dict[str, Any] = {"near": {}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dedup")
    write_tokenizer(folder / "tok")
    write_duplicates(folder / "raw")
    return folder


@pytest.fixture(scope="module")
def kinds(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    return write_duplicates(tmp_path_factory.mktemp("again"))


def result(base: Path, name: str, dedup: dict[str, Any] | None, **changes: Any) -> tuple[Store, Manifest]:
    """The store ``name`` and its manifest, made once."""
    config = dedup_config(base, dedup, store=str(base / name), **changes)
    manifest = preprocess_here(config)
    return open_store(config.store), manifest


def ids(store: Store, manifest: Manifest) -> list[str]:
    return sorted(kept.split()[1] for kept in kept_ids(store, manifest))


def test_without_dedup_everything_stays_and_no_fingerprint_changes(base: Path, kinds: dict[str, set[str]]) -> None:
    store, manifest = result(base, "plain", None)
    assert set(ids(store, manifest)) == set().union(*kinds.values())
    assert not [info.key for info in store.list("dedup/")]
    plain, off = dedup_config(base, None), dedup_config(base, {"partition_bytes": 7})
    assert fingerprint(plain) == fingerprint(PreprocessConfig.model_validate(plain.model_dump(exclude={"dedup"})))
    assert fingerprint(off) == fingerprint(dedup_config(base, {}))
    assert fingerprint(off) != fingerprint(plain)


def test_exact_drops_copies_across_files_and_keeps_the_first(base: Path, kinds: dict[str, set[str]]) -> None:
    store, manifest = result(base, "exact", {})
    assert set(ids(store, manifest)) == kinds["original"] | kinds["late"] | kinds["near"]
    ledger = manifest.ledger
    assert ledger.dropped == {"duplicate": len(kinds["copy"])}
    assert ledger.missing == 0
    assert ledger.records == sum(map(len, kinds.values()))


def test_near_drops_edited_copies_and_counts_copies_once(base: Path, kinds: dict[str, set[str]]) -> None:
    store, manifest = result(base, "near", NEAR)
    assert set(ids(store, manifest)) == kinds["original"] | kinds["late"]
    assert manifest.ledger.dropped == {"duplicate": len(kinds["copy"]), "near_duplicate": len(kinds["near"])}
    found = duplicate_clusters(store, load_plan(store))
    assert found["duplicate"].sizes == {2: len(kinds["copy"])}
    top = found["duplicate"].largest[0]
    assert (top.kept.path, top.kept.position) == ("a.json", 1)
    raw = (base / "raw" / top.dropped[0].path).read_bytes()[top.dropped[0].position :]
    assert json.JSONDecoder().raw_decode(raw.decode())[0]["uniqueKey"] == "copy-0"
    assert set(found["near_duplicate"].sizes) == {2}  # without their copies, pairs


def test_near_alone_takes_copies_too(base: Path, kinds: dict[str, set[str]]) -> None:
    store, manifest = result(base, "near-alone", {"exact": False, "near": {}})
    assert set(ids(store, manifest)) == kinds["original"] | kinds["late"]
    assert manifest.ledger.dropped == {"near_duplicate": len(kinds["copy"] | kinds["near"])}


@pytest.mark.parametrize("task_bytes", [4000, 20_000, 10**6])
def test_the_size_of_tasks_and_partitions_decides_nothing(base: Path, task_bytes: int) -> None:
    _, expected = result(base, "near", NEAR)
    store, manifest = result(
        base, f"near-{task_bytes}", {"near": {}, "partition_bytes": 1 + task_bytes * 3}, tasks={"bytes": task_bytes}
    )
    assert ids(store, manifest) == ids(open_store(str(base / "near")), expected)
    assert manifest.ledger.dropped == expected.ledger.dropped


def test_the_order_of_completion_and_the_number_of_partitions_change_no_byte_of_the_result(base: Path) -> None:
    store, manifest = result(base, "near", NEAR)
    for name, seed, partition_bytes in (("shuffled", 3, 2**31), ("many", 4, 4000)):
        config = dedup_config(base, {"near": {}, "partition_bytes": partition_bytes}, store=str(base / name))
        assert preprocess_here(config, shuffle=seed) == manifest
        if partition_bytes == 2**31:
            assert contents(open_store(config.store)) == contents(store)
    assert load_plan(open_store(str(base / "many"))).partitions == 22


def test_a_later_run_keeps_the_partitions_of_the_first(base: Path) -> None:
    """The key decides no byte, so it may change; what was signed is laid out by the first one's."""
    config = dedup_config(base, {"partition_bytes": 4000}, store=str(base / "pinned"))
    target, raw, plan, _ = prepare(config)
    worker = Worker(target, raw, plan, base / "spool")
    for unit in stages_of(plan)[0].units:
        worker.run(unit.id)
    other = dedup_config(base, {"partition_bytes": 10**9}, store=config.store)
    assert preprocess_here(other) == result(base, "exact", {})[1]


def test_workers_of_the_local_pool(base: Path) -> None:
    """Two processes, three stages, one driver; progress names them."""
    config = dedup_config(
        base, {"near": {}, "partition_bytes": 50_000}, store=str(base / "pool"), tasks={"bytes": 45_000}
    )
    seen: list[tuple[str, int, int]] = []
    done = run_preprocess(
        config,
        lambda folder: LocalBackend(folder, 2),
        on_progress=lambda now: seen.append((now.stage, now.tasks_done, now.tasks)),
    )
    assert done.manifest.ledger == result(base, "near", NEAR)[1].ledger
    plan = load_plan(open_store(config.store))
    counts = {stage.name: len(stage.units) for stage in stages_of(plan)}
    assert list(dict.fromkeys(name for name, _, _ in seen)) == list(counts) == ["sign", "compare", "tokenize"]
    assert all((name, total, total) in seen for name, total in counts.items())
    assert done.tasks == done.tasks_done == sum(counts.values())
    status = store_status(open_store(config.store))
    assert [(stage.name, stage.tasks, stage.tasks_done) for stage in status.stages] == [
        (name, total, total) for name, total in counts.items()
    ]


def test_validation_holds_nothing_of_training(tmp_path: Path) -> None:
    """Copies have other ids, so the split alone would put some of them on the other side."""
    (tmp_path / "raw").mkdir()
    write_tokenizer(tmp_path / "tok")
    records = [record(f"{copy}-{number}", original(number)) for copy in range(3) for number in range(40)]
    (tmp_path / "raw" / "a.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    split = {"validation_fraction": 0.3}

    def both(name: str, dedup: dict[str, Any] | None) -> set[str]:
        config = dedup_config(tmp_path, dedup, store=str(tmp_path / name), split=split)
        manifest = preprocess_here(config)
        sides: dict[str, set[str]] = {"train": set(), "validation": set()}
        for kept in kept_ids(open_store(config.store), manifest):
            side, identifier = kept.split()
            sides[side].add(identifier.split("-")[1])
        assert sides["validation"]
        return sides["train"] & sides["validation"]

    assert both("plain", None)
    assert not both("exact", {})


def test_documents_that_cleaning_drops_are_no_rows(tmp_path: Path) -> None:
    """The short text before its copies is gone before rows are counted; texts that cleaning makes equal are equal."""
    (tmp_path / "raw").mkdir()
    write_tokenizer(tmp_path / "tok")
    texts = ["短", original(1), "短", original(1) + " https://example.com/a", original(1) + " https://example.com/b"]
    records = [record(str(number), text) for number, text in enumerate(texts)]
    (tmp_path / "raw" / "a.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    config = dedup_config(tmp_path, {}, cleaning={"urls": True, "min_characters": 20})
    manifest = preprocess_here(config)
    assert manifest.ledger.dropped == {"duplicate": 1, "too_short": 2}
    assert kept_ids(open_store(config.store), manifest)[0].endswith(" 1")


# ── guards ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def at_stage(base: Path, name: str, stages: int, dedup: dict[str, Any] | None = None) -> tuple[Store, Worker]:
    """A store whose first stages are done, and a worker for the rest."""
    config = dedup_config(base, NEAR if dedup is None else dedup, store=str(base / name))
    target, raw, plan, _ = prepare(config)
    worker = Worker(target, raw, plan, base / "spool")
    for stage in stages_of(plan)[:stages]:
        for unit in stage.units:
            worker.run(unit.id)
    return target, worker


def test_rows_that_are_not_the_ones_that_were_signed_are_refused(base: Path) -> None:
    """The count, and which documents they are."""
    for name, change in (("rows-a", {"documents": 1}), ("rows-b", None)):
        store, worker = at_stage(base, name, 2)
        key = receipt_key("sign-000000")
        receipt = parse_sign(store.read(key), key)
        if change is None:
            places = receipt.regions[0].model_copy(update={"crc32": (1,)})
            receipt = receipt.model_copy(update={"regions": (places, *receipt.regions[1:])})
        else:
            receipt = receipt.model_copy(update={"documents": receipt.documents + change["documents"]})
        store.put(key, to_json(receipt))
        with pytest.raises(CorpusError, match="were signed to find duplicates"):
            worker.run("task-000000")
        assert not store.exists(receipt_key("task-000000"))


@pytest.mark.parametrize("stages", [1, 2])
def test_a_damaged_block_is_refused_by_the_stage_that_reads_it(base: Path, stages: int) -> None:
    store, worker = at_stage(base, f"damaged-{stages}", stages)
    prefix = "dedup/sign-000000" if stages == 1 else "dedup/compare-"
    key = next(info.key for info in store.list(prefix))
    data = bytearray(store.read(key))
    data[-20 if stages == 1 else 2] ^= 4
    store.put(key, bytes(data))
    compared = store.read(receipt_key("compare-0000")) if stages == 2 else b""
    first = parse_compare(compared, "the receipt").tasks[0] if compared else 0
    unit = f"task-{first:06d}" if compared else "compare-0000"
    with pytest.raises(StoreError, match="are not those of the receipt"):
        worker.run(unit)
    assert not store.exists(receipt_key(unit))


@pytest.mark.parametrize(
    ("stages", "victim", "unit"), [(1, "sign-000001", "compare-0000"), (2, "compare-0000", "task-000000")]
)
def test_no_stage_begins_before_the_one_before_is_done(base: Path, stages: int, victim: str, unit: str) -> None:
    store, worker = at_stage(base, f"early-{stages}", stages)
    kept = store.read(receipt_key(victim))
    store.delete(receipt_key(victim))
    with pytest.raises(PlanError, match=f"missing, the first is that of {victim}"):
        worker.run(unit)
    store.put(receipt_key(victim), kept.replace(b'"plan": "sha256:', b'"plan": "sha256:0'))
    with pytest.raises(PlanError, match="belongs to another plan"):
        worker.run(unit)


def test_tasks_that_dropped_by_different_lists_make_no_manifest(base: Path) -> None:
    store, _ = result(base, "exact", {})
    plan = load_plan(store)
    receipts = read_receipts(store, plan.tasks)
    assert build_manifest(plan, receipts)
    last = plan.tasks[-1].id
    receipts[last] = receipts[last].model_copy(update={"duplicates": "sha256:other"})
    with pytest.raises(PlanError, match="by other lists"):
        build_manifest(plan, receipts)


def test_other_libraries_than_the_plans_are_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, worker = at_stage(base, "libraries", 0)
    assert load_plan(store).libraries.keys() == {"Unicode", "rensa's algorithm"}
    monkeypatch.setattr("lmbatch.preprocess.plan.dedup_libraries", lambda config: {"Unicode": "1.0"})
    with pytest.raises(PlanError, match="planned with Unicode"):
        worker.run("sign-000000")


# ── cost ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_signing_and_comparing_load_no_tokenizer(base: Path) -> None:
    """It is not even there."""
    store, _ = at_stage(base, "no-tokenizer", 0)
    for info in list(store.list("tokenizer/")):
        store.delete(info.key)
    units = [unit.id for stage in stages_of(load_plan(store))[:2] for unit in stage.units]
    assert TaskBatch(store.uri, tuple(units), str(base / "spool")).run() == {}


def test_a_share_at_a_time_gives_the_same_rows(base: Path) -> None:
    """However few rows fit at once; every share has all records of its keys."""
    store, _ = at_stage(base, "shares", 1)
    plan = load_plan(store)
    for kind, dtype, key in (("exact", EXACT, "high"), ("band-03", BAND, "key")):
        [(whole, tasks)] = SignedTasks(store, plan).gather(kind, 0, dtype, key)
        parts = list(SignedTasks(store, plan, most=20).gather(kind, 0, dtype, key))
        assert len(parts) == -(-len(whole) // 20) > 3
        assert sum(len(records) for records, _ in parts) == len(whole)
        keys = [set(records[key].tolist()) for records, _ in parts]
        assert sum(map(len, keys)) == len(set().union(*keys))
        together = sorted(
            (n, *row) for records, numbers in parts for n, row in zip(numbers, records.tolist(), strict=True)
        )
        assert together == sorted((n, *row) for n, row in zip(tasks, whole.tolist(), strict=True))


COMPARE = """
import sys
import zlib
from pathlib import Path
from lmbatch.preprocess import LiveTask, load_plan
from lmbatch.preprocess.dedup import SignedTasks, compare_units, run_compare
from lmbatch.store import open_store
store = open_store(sys.argv[1])
plan = load_plan(store)
[unit] = compare_units(plan)
signed = SignedTasks(store, plan, most=int(sys.argv[3]))
receipt = run_compare(store, plan, unit, signed, Path(sys.argv[2]), LiveTask())
print(receipt.dropped["duplicate"], receipt.peak_memory_bytes)
"""


def test_memory_of_comparing_is_bounded(base: Path) -> None:
    """Three million rows, 60 MB, of which a quarter of a million are sorted at a time."""
    store, _ = at_stage(base, "memory", 1, {})
    rows, drops = 3_000_000, 1000
    key = receipt_key("sign-000000")
    receipt = parse_sign(store.read(key), key)
    records = np.zeros(rows, dtype=EXACT)
    records["high"] = np.random.default_rng(1).integers(0, 2**64, rows, dtype=np.uint64)
    records["row"] = np.arange(rows)
    records["high"][-drops:] = records["high"][:drops]
    write_sign(store, receipt, records)
    command = [sys.executable, "-c", COMPARE, store.uri, str(base / "spool"), str(1 << 18)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    dropped, peak = map(int, done.stdout.split())
    copies = result(base, "exact", {})[1].ledger.dropped["duplicate"]
    assert drops <= dropped <= drops + copies
    assert peak < 280e6, f"{peak / 1e6:.0f} MB"


def write_sign(store: Store, receipt: Any, records: np.ndarray) -> None:
    """Put another exact region into a signed task of one partition."""
    places, data = np.zeros(len(records), dtype=PLACE).tobytes(), records.tobytes()
    store.put(receipt.payload.key, places + data)
    regions = [
        region.model_copy(update={"offset": offset, "counts": (len(records),), "crc32": (zlib.crc32(content),)})
        for region, offset, content in zip(receipt.regions, (0, len(places)), (places, data), strict=True)
    ]
    store.put(receipt_key(receipt.task), to_json(receipt.model_copy(update={"regions": tuple(regions)})))


def test_records_are_packed() -> None:
    assert (EXACT.itemsize, BAND.itemsize, DROP.itemsize) == (20, 16, 16)
    with pytest.raises(ValueError, match="leave `dedup` out"):
        DedupConfig(exact=False)


def test_texts_of_the_helpers_differ() -> None:
    assert len({original(number) for number in range(100)}) == 100
    assert edited(original(1), 1) != original(1) != disguised(original(1))
