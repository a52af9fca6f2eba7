"""Plan → task → merge: what goes in comes out, whoever does the work and in whatever order."""

from __future__ import annotations

import io
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lmbatch.config import PreprocessConfig
from lmbatch.errors import (
    CorpusError,
    ErrorBudgetError,
    InputChangedError,
    InputMissingError,
    PlanError,
    StoreError,
    TokenizerError,
    VocabularyError,
)
from lmbatch.preprocess import build_manifest, load_plan, merge, read_receipts, receipt_key, run_task
from lmbatch.preprocess.plan import PlannedPiece, choose_dtype, group_tasks
from lmbatch.shards import DTYPES, parse_index
from lmbatch.store import Manifest, Store, open_store, parse_manifest
from lmbatch.tokens import load_tokenizer
from lmbatch.tokens.engines import Ids
from support.drive import contents, prepare, preprocess_here
from support.wudao import config_for, write_files, write_tokenizer


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_files(tmp_path / "raw")
    write_tokenizer(tmp_path / "tok")
    return tmp_path


def texts_in(store: Store, manifest: Manifest, tokenizer: Path) -> list[str]:
    """Every document's text, decoded from the shards."""
    backend = load_tokenizer(tokenizer).backend
    texts = []
    for shard in manifest.shards:
        index = parse_index(store.read(shard.idx.key), shard.idx.key)
        dtype = DTYPES[index.dtype]
        tokens = np.frombuffer(store.read(shard.bin.key), dtype=dtype)
        for start, length in zip(index.pointers // dtype.itemsize, index.lengths, strict=True):
            texts.append(backend.decode(tokens[start : start + length - 1].tolist(), skip_special_tokens=False))
    return texts


def test_every_document_comes_out_once_and_as_it_was(base: Path) -> None:
    texts = write_files(base / "raw")
    config = config_for(base)
    manifest = preprocess_here(config)
    store = open_store(config.store)
    assert len(load_plan(store).tasks) > 5
    assert sorted(texts_in(store, manifest, base / "tok")) == sorted(texts)
    assert manifest.ledger.records == len(texts) == manifest.ledger.documents_out
    assert manifest.ledger.missing == 0
    assert {shard.split for shard in manifest.shards} == {"train", "validation"}
    assert sum(shard.text_bytes for shard in manifest.shards) == sum(len(text.encode()) for text in texts)


def test_the_digest_does_not_depend_on_place_order_or_attempts(base: Path) -> None:
    first = config_for(base)
    second = config_for(base, store=str(base / "other"), spool=str(base / "spool2"))
    one = preprocess_here(first)
    two = preprocess_here(second, shuffle=7)
    assert one == two
    assert contents(open_store(first.store)) == contents(open_store(second.store))
    assert preprocess_here(first) == one  # again, over what is there


def test_the_digest_depends_on_the_content(base: Path) -> None:
    before = preprocess_here(config_for(base)).digest
    path = next((base / "raw").glob("*.json"))
    path.write_text(path.read_text(encoding="utf-8").replace("专利权人", "專利權人", 1), encoding="utf-8")
    assert preprocess_here(config_for(base, store=str(base / "other"))).digest != before


def test_where_each_document_came_from_is_kept(base: Path) -> None:
    config = config_for(base)
    manifest = preprocess_here(config)
    store = open_store(config.store)
    plan = load_plan(store)
    receipts = read_receipts(store, plan.tasks)
    for receipt in receipts.values():
        for shard in receipt.shards:
            rows = pq.read_table(io.BytesIO(store.read(shard.docs.key))).to_pylist()
            assert len(rows) == shard.documents
            for row in rows:
                data = (base / "raw" / receipt.pieces[row["piece"]].path).read_bytes()
                record = json.JSONDecoder().raw_decode(data[row["position"] :].decode())[0]
                assert record["uniqueKey"] == row["id"]
    assert manifest.ledger.records


def test_a_task_with_a_receipt_is_left_alone(base: Path) -> None:
    store, raw, plan, encoder = prepare(config_for(base))
    assert run_task(store, raw, plan, plan.tasks[0], encoder, base / "spool") is not None
    before = contents(store)
    assert run_task(store, raw, plan, plan.tasks[0], encoder, base / "spool") is None
    assert contents(store) == before


def test_of_two_attempts_one_wins_and_nothing_refers_to_the_other(base: Path) -> None:
    store, raw, plan, encoder = prepare(config_for(base))
    task = plan.tasks[0]
    first = run_task(store, raw, plan, task, encoder, base / "spool")
    kept = store.read(receipt_key(task.id))

    class Blind:
        """A store that shows an attempt no receipt: it began before the other one ended."""

        def __getattr__(self, name: str) -> object:
            return (lambda key: False) if name == "exists" else getattr(store, name)

    second = run_task(Blind(), raw, plan, task, encoder, base / "spool")  # type: ignore[arg-type]
    assert first is not None
    assert second is not None
    assert first.attempt != second.attempt
    assert store.read(receipt_key(task.id)) == kept
    assert first.shards == second.shards


def test_shards_roll_over_at_their_size(base: Path) -> None:
    config = config_for(base, shards={"max_bytes": 500}, tasks={"bytes": 10**6})
    manifest = preprocess_here(config)
    assert len(manifest.of("train")) > 5
    assert all(shard.documents >= 1 for shard in manifest.shards)
    assert manifest.ledger.documents_out == sum(shard.documents for shard in manifest.shards)


def test_small_files_share_a_task(base: Path) -> None:
    plan = prepare(config_for(base, tasks={"bytes": 10**7}))[2]
    assert len(plan.files) == 3
    assert len(plan.tasks) == 1


def test_tasks_keep_the_order_and_stay_within_the_target() -> None:
    sizes = [3, 3, 5, 9, 1, 1, 1, 12]
    pieces = [PlannedPiece(file=number, start=0, end=size, bytes=size) for number, size in enumerate(sizes)]
    tasks = group_tasks(pieces, 8)
    assert [piece for task in tasks for piece in task.pieces] == pieces
    assert [sum(piece.bytes for piece in task.pieces) for task in tasks] == [6, 5, 9, 3, 12]
    assert [task.id for task in tasks][:2] == ["task-000000", "task-000001"]


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────────────────────
def add_file(base: Path, name: str, data: bytes) -> None:
    (base / "raw" / name).write_bytes(data)


def generous(base: Path) -> PreprocessConfig:
    return config_for(base, budget={"max_quarantined_records": 100})


@pytest.mark.parametrize(
    ("data", "reasons", "survivors"),
    [
        (b'[{"id":1,"uniqueKey":"a","content":"\xe5\xa5\xbd"},{"id":2,"uniqueKey":"b","conte', {"truncated": 1}, 1),
        (b'[{"id":1,"content":"ok"},{"id":2,"content":"\xff\xfe"},{"id":3,"content":"ok"}]', {"invalid_utf8": 1}, 2),
        (b'[{"id":1,"content":"ok"}, 42, "text", null, [1], {"id":2,"content":"ok"}]', {"not_an_object": 4}, 2),
        (b'[{"id":1},{"id":2,"content":null},{"id":3,"content":7},{"id":4,"content":"ok"}]',
         {"missing_text": 1, "null_text": 1, "text_not_a_string": 1}, 1),
        (b'[{"id":1,"content":"one","content":"two"},{"id":2,"content":"ok"}]', {"duplicate_key": 1}, 1),
        (b'\xef\xbb\xbf[{"id":1,"content":"with a BOM"}]', {}, 1),
        (b"", {"empty_file": 1}, 0),
    ],
    ids=["truncated", "utf8", "no-object", "text-field", "duplicate-key", "bom", "empty-file"],
)  # fmt: skip
def test_bad_records_are_set_aside_with_their_place_and_neighbours_survive(
    base: Path, data: bytes, reasons: dict[str, int], survivors: int
) -> None:
    add_file(base, "zz-bad.json", data)
    config = generous(base)
    manifest = preprocess_here(config)
    assert manifest.ledger.quarantined == reasons
    assert manifest.ledger.documents_out == 120 + survivors
    assert manifest.ledger.missing == 0
    store = open_store(config.store)
    rows = [json.loads(line) for info in store.list("quarantine/") for line in store.read(info.key).splitlines()]
    assert {row["path"] for row in rows} == ({"zz-bad.json"} if reasons else set())
    for row in rows:
        assert 0 <= row["position"] <= len(data)
        assert row["detail"]


def test_documents_with_one_id_are_both_kept_and_fall_in_one_split(base: Path) -> None:
    rows = [{"id": i, "uniqueKey": "same", "content": f"text {i}"} for i in range(20)]
    add_file(base, "zz-same.json", json.dumps(rows).encode())
    config = generous(base)
    manifest = preprocess_here(config)
    assert manifest.ledger.documents_out == 140
    store = open_store(config.store)
    splits = {
        shard.split
        for shard in manifest.shards
        for row in pq.read_table(io.BytesIO(store.read(shard.docs.key))).to_pylist()
        if row["id"] == "same"
    }
    assert len(splits) == 1


def test_a_run_over_its_error_budget_fails_and_names_the_worst_files(base: Path) -> None:
    add_file(base, "zz-bad.json", json.dumps([{"id": i} for i in range(9)]).encode())
    config = config_for(base, budget={"max_quarantined_records": 5})
    with pytest.raises(ErrorBudgetError, match=r"9 of 129 records were quarantined, 5 are allowed .*zz-bad\.json"):
        preprocess_here(config)
    assert not open_store(config.store).exists("manifest.json")


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    write_tokenizer(tmp_path / "tok")
    with pytest.raises(InputMissingError, match="no input files"):
        preprocess_here(config_for(tmp_path))


def test_a_corpus_without_one_good_document_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tok")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.json").write_text('[{"id":1,"text":"the field has another name"}]', encoding="utf-8")
    with pytest.raises(CorpusError, match="no document is left to train on"):
        preprocess_here(config_for(tmp_path))


def test_an_input_that_changed_after_planning_is_refused_by_name(base: Path) -> None:
    store, raw, plan, encoder = prepare(config_for(base))
    path = base / "raw" / plan.files[0].path
    os.utime(path, (1, 1))
    with pytest.raises(InputChangedError, match=plan.files[0].path):
        run_task(store, raw, plan, plan.tasks[0], encoder, base / "spool")
    path.unlink()
    with pytest.raises(InputChangedError, match="is gone"):
        run_task(store, raw, plan, plan.tasks[0], encoder, base / "spool")
    assert not store.exists(receipt_key(plan.tasks[0].id))


def test_an_input_that_changes_while_it_is_read_is_refused(base: Path) -> None:
    store, raw, plan, encoder = prepare(config_for(base))

    class Touching:
        """An encoder during whose work somebody writes to the input."""

        engine = "test"

        def begin(self, place: str) -> None:
            encoder.begin(place)

        def encode_ended(self, texts: list[str]) -> Ids:
            os.utime(base / "raw" / plan.files[0].path, (2, 2))
            return encoder.encode_ended(texts)

    with pytest.raises(InputChangedError):
        run_task(store, raw, plan, plan.tasks[0], Touching(), base / "spool")  # type: ignore[arg-type]
    assert not store.exists(receipt_key(plan.tasks[0].id))


def test_a_store_that_holds_another_plan_is_refused_with_the_difference(base: Path) -> None:
    preprocess_here(config_for(base))
    with pytest.raises(PlanError, match=r"tasks\.bytes: 6000 → 7000"):
        preprocess_here(config_for(base, tasks={"bytes": 7000}))


def test_a_store_of_another_tokenizer_is_refused(base: Path) -> None:
    preprocess_here(config_for(base))
    write_tokenizer(base / "tok", vocab_size=300)
    with pytest.raises(PlanError, match=r"tokenizer\.fingerprint"):
        preprocess_here(config_for(base))


def test_a_damaged_copy_of_the_tokenizer_is_refused(base: Path) -> None:
    from lmbatch.preprocess import load_tokenizer_of

    store, _, plan, _ = prepare(config_for(base))
    write_tokenizer(base / "other", vocab_size=300)
    store.put("tokenizer/tokenizer.json", (base / "other" / "tokenizer.json").read_bytes())
    with pytest.raises(TokenizerError, match="not the tokenizer that the plan was made with"):
        load_tokenizer_of(store, plan, base / "copy")


def test_a_damaged_plan_is_refused(base: Path) -> None:
    store = prepare(config_for(base))[0]
    store.put("plan.json", store.read("plan.json").replace(b'"bytes": 6000', b'"bytes": 6001'))
    with pytest.raises(PlanError, match="does not give its fingerprint"):
        load_plan(store)


@pytest.mark.parametrize(
    ("wanted", "largest", "dtype"), [("auto", 65535, "uint16"), ("auto", 65536, "int32"), ("int32", 5, "int32")]
)
def test_the_dtype_follows_from_the_largest_id(wanted: str, largest: int, dtype: str) -> None:
    assert choose_dtype(wanted, largest) == dtype


def test_a_dtype_that_cannot_hold_the_vocabulary_is_refused() -> None:
    with pytest.raises(VocabularyError, match="ids up to 65536"):
        choose_dtype("uint16", 65536)


def test_a_missing_receipt_stops_the_merge(base: Path) -> None:
    config = config_for(base)
    preprocess_here(config)
    store = open_store(config.store)
    plan = load_plan(store)
    store.delete("manifest.json")
    store.delete(receipt_key(plan.tasks[2].id))
    with pytest.raises(PlanError, match="1 of .* tasks have no receipt, the first is task-000002"):
        merge(store, plan)


def test_readers_that_do_not_meet_stop_the_merge(base: Path) -> None:
    store, raw, plan, encoder = prepare(config_for(base))
    for task in plan.tasks:
        run_task(store, raw, plan, task, encoder, base / "spool")
    receipts = read_receipts(store, plan.tasks)
    torn = receipts["task-000000"]
    piece = torn.pieces[0].model_copy(update={"end_position": torn.pieces[0].end_position + 1})
    receipts["task-000000"] = torn.model_copy(update={"pieces": (piece, *torn.pieces[1:])})
    with pytest.raises(CorpusError, match="one reader stopped at byte"):
        build_manifest(plan, receipts)


def test_a_ledger_that_does_not_add_up_stops_the_merge(base: Path) -> None:
    store, raw, plan, encoder = prepare(config_for(base))
    for task in plan.tasks:
        run_task(store, raw, plan, task, encoder, base / "spool")
    receipts = read_receipts(store, plan.tasks)
    torn = receipts["task-000001"]
    ledger = torn.ledger.model_copy(update={"records": torn.ledger.records + 1})
    receipts["task-000001"] = torn.model_copy(update={"ledger": ledger})
    with pytest.raises(CorpusError, match="task-000001: 1 records are unaccounted for"):
        build_manifest(plan, receipts)


def test_a_manifest_that_was_changed_is_refused(base: Path) -> None:
    config = config_for(base)
    preprocess_here(config)
    store = open_store(config.store)
    data = store.read("manifest.json").replace(b'"documents": ', b'"documents": 1', 1)
    with pytest.raises(StoreError, match="the manifest says"):
        parse_manifest(data, "manifest.json")


def test_a_worker_with_other_unicode_tables_is_refused_and_not_believed(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, raw, plan, encoder = prepare(config_for(base, cleaning={"preset": "light"}))
    assert plan.libraries["Unicode"] == unicodedata.unidata_version
    monkeypatch.setattr(unicodedata, "unidata_version", "9.0.0")
    with pytest.raises(PlanError, match=r"planned with Unicode [\d.]+, .* has 9\.0\.0"):
        run_task(store, raw, plan, plan.tasks[0], encoder, base / "spool")
    assert not store.exists(receipt_key(plan.tasks[0].id))


def test_without_cleaning_no_library_is_asked_for(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, raw, plan, encoder = prepare(config_for(base))
    monkeypatch.setattr(unicodedata, "unidata_version", "9.0.0")
    assert plan.libraries == {}
    assert run_task(store, raw, plan, plan.tasks[0], encoder, base / "spool") is not None
