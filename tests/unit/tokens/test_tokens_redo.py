"""A whole job with an engine that is wrong on one document: the same bytes as Hugging Face's own, and it says so."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from tokens_helpers import Double

from lmbatch.launch import TaskBatch
from lmbatch.preprocess import merge, read_receipts, run_task
from lmbatch.store import Manifest, Receipt, Store
from lmbatch.tokens import Encoder, load_tokenizer
from lmbatch.tokens.engines import Ids
from support.drive import contents, prepare
from support.wudao import config_for, write_files, write_tokenizer

# Two neighbours in one task: the first lies in a batch that is not compared, the second in one that is.
TRAPS = ("第57条", "第58条")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_files(tmp_path / "raw")
    write_tokenizer(tmp_path / "tok")
    monkeypatch.setattr("lmbatch.preprocess.pipeline._BATCH_DOCUMENTS", 4)
    monkeypatch.setattr("lmbatch.tokens.engines.proof.EVERY_BATCHES", 2)
    return tmp_path


def work(base: Path, name: str, *traps: str) -> tuple[Store, Manifest, dict[str, Receipt]]:
    """The whole job; with ``traps``, by an engine that is wrong on texts that hold one of them."""
    config = config_for(base, store=str(base / name), shards={"max_bytes": 200})
    store, raw, plan, _ = prepare(config)
    tokenizer = load_tokenizer(base / "tok")
    encoder = Encoder(tokenizer, "huggingface", fast=Double(tokenizer, *traps) if traps else None)
    for task in plan.tasks:
        run_task(store, raw, plan, task, encoder, base / "spool")
    return store, merge(store, plan), read_receipts(store, plan.tasks)


def test_a_wrong_engine_leaves_no_trace_in_the_bytes(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    right, expected, _ = work(base, "right")
    store, manifest, receipts = work(base, "wrong", *TRAPS)
    assert manifest == expected
    kept, found = contents(right), contents(store)
    for shard in manifest.shards:
        for entry in (shard.bin, shard.idx, shard.docs):
            assert found[entry.key] == kept[entry.key]
    engines = [receipt.engine for _, receipt in sorted(receipts.items())]
    assert engines == sorted(engines)  # "double" until the task of these documents, "huggingface" from it on
    assert set(engines) == {"double", "huggingface"}
    assert caplog.text.count("double is not used any more") == 1
    task = next(task for task, receipt in sorted(receipts.items()) if receipt.engine == "huggingface")
    assert f"of {task};" in caplog.text


def test_the_task_was_really_begun_again(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    begin, encode = Encoder.begin, Encoder.encode_ended

    def watch_begin(self: Encoder, place: str) -> None:
        seen.append((place, 0))
        begin(self, place)

    def watch_encode(self: Encoder, texts: Sequence[str]) -> Ids:
        seen[-1] = (seen[-1][0], seen[-1][1] + 1)
        return encode(self, texts)

    monkeypatch.setattr(Encoder, "begin", watch_begin)
    monkeypatch.setattr(Encoder, "encode_ended", watch_encode)
    _, _, receipts = work(base, "wrong", *TRAPS)
    places = [place for place, _ in seen if place]
    redone = [place for place in places if places.count(place) > 1]
    assert len(redone) == 2
    assert receipts[redone[0]].engine == "huggingface"
    first, second = (batches for place, batches in seen if place == redone[0])
    assert 1 < first <= second


def test_the_receipt_names_the_engine_that_is_installed(base: Path) -> None:
    config = config_for(base, store=str(base / "fast"))
    store, raw, plan, encoder = prepare(config)
    run_task(store, raw, plan, plan.tasks[0], encoder, base / "spool")
    receipt = json.loads(store.read(f"receipts/{plan.tasks[0].id}.json"))
    assert receipt["engine"] == "fastokens"


def test_the_engine_may_be_changed_on_a_store_that_has_its_plan(base: Path) -> None:
    store, _, plan, _ = prepare(config_for(base))
    first, second = (task.id for task in plan.tasks[:2])
    assert not TaskBatch(store.uri, (first,), str(base / "spool")).run()
    assert not TaskBatch(store.uri, (second,), str(base / "spool"), engine="huggingface").run()
    receipts = read_receipts(store, plan.tasks)
    assert (receipts[first].engine, receipts[second].engine) == ("fastokens", "huggingface")
