"""A receipt carries the traffic of its task; receipts from before that can still be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmbatch.launch.backend import TaskBatch
from lmbatch.preprocess import load_plan, read_receipts
from lmbatch.store import Traffic, open_store, parse_receipt
from support.drive import prepare, preprocess_here
from support.wudao import config_for, write_files, write_tokenizer


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_files(tmp_path / "raw")
    write_tokenizer(tmp_path / "tok")
    return tmp_path


def test_the_receipts_of_a_process_add_up_to_its_traffic(base: Path) -> None:
    config = config_for(base)
    store = prepare(config)[0]
    plan = load_plan(store)
    failures = TaskBatch(
        store.uri, tuple(task.id for task in plan.tasks), str(base / "spool"), heartbeat_seconds=0
    ).run()
    assert failures == {}
    receipts = list(read_receipts(store, plan.tasks).values())
    traffic = sum((receipt.traffic or Traffic() for receipt in receipts), Traffic())
    shards = [shard for receipt in receipts for shard in receipt.shards]
    # A profile and a receipt for each task.
    assert traffic.put == 3 * len(shards) + 2 * len(receipts)
    assert traffic.bytes_up > sum(shard.bin.size + shard.idx.size + shard.docs.size for shard in shards)
    assert traffic.get == 1 + len(plan.tokenizer.files)  # the plan, and the tokenizer beside it
    assert traffic.head == len(receipts)  # is it done already?
    first, *others = receipts
    assert first.traffic is not None
    assert first.traffic.bytes_down > 0
    assert all(receipt.traffic is not None and receipt.traffic.bytes_down == 0 for receipt in others)
    inputs = [receipt.input_traffic or Traffic() for receipt in receipts]
    assert sum(count.get for count in inputs) == sum(len(task.pieces) for task in plan.tasks)
    assert sum(count.bytes_down for count in inputs) >= plan.input_bytes


def test_an_older_receipt_parses_and_traffic_is_in_no_digest(base: Path) -> None:
    config = config_for(base)
    manifest = preprocess_here(config)
    store = open_store(config.store)
    key = "receipts/task-000000.json"
    later = ("traffic", "input_traffic", "seal")
    older = {name: value for name, value in json.loads(store.read(key)).items() if name not in later}
    parsed = parse_receipt(json.dumps(older).encode(), key)
    assert (parsed.traffic, parsed.input_traffic) == (None, None)
    store.put(key, json.dumps(older).encode())
    store.delete("manifest.json")
    assert preprocess_here(config).digest == manifest.digest
