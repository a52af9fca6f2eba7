"""kill -9 at every publish boundary of preprocessing: what is left is never taken for done, and a second run ends with
the same bytes as an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmbatch.launch import open_target
from lmbatch.preprocess import verify_store
from lmbatch.store import open_store
from support.drive import WatchedStore, contents, in_child, kill_at, preprocess_here
from support.wudao import config_for, write_files, write_tokenizer

SIGKILLED = -9


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill")
    write_files(folder / "raw", files=2, documents=12)
    write_tokenizer(folder / "tok")
    return folder


@pytest.fixture(scope="module")
def undisturbed(base: Path) -> tuple[dict[str, bytes], list[str]]:
    """The bytes of an undisturbed run, and the name of each of its writes in order."""
    config = config_for(base, store=str(base / "undisturbed"))
    writes: list[str] = []
    store = WatchedStore(
        open_target(config), lambda number, phase, operation, key: writes.append(key) if phase == "before" else None
    )
    preprocess_here(config, store)  # type: ignore[arg-type]
    return contents(open_store(config.store)), writes


def test_every_publish_boundary(base: Path, undisturbed: tuple[dict[str, bytes], list[str]]) -> None:
    """Before and after the plan, each payload, each receipt and the manifest."""
    whole, writes = undisturbed
    assert writes[0] == "plan.json"
    assert writes[-1] == "manifest.json"
    assert sum(key.startswith("receipts/") for key in writes) > 1
    for number, key in enumerate(writes):
        for phase in ("before", "after"):
            config = config_for(base, store=str(base / f"store-{number}-{phase}"))
            store = WatchedStore(open_target(config), kill_at(number, phase))
            assert in_child(lambda c=config, s=store: preprocess_here(c, s)) == SIGKILLED, (key, phase)
            left = open_store(config.store)
            if number or phase == "after":  # before the plan there is nothing to verify
                done = number == len(writes) - 1 and phase == "after"
                assert verify_store(left).right == done, (key, phase)
            assert in_child(lambda c=config: preprocess_here(c)) == 0, (key, phase)
            assert contents(left) == whole, (key, phase)


def test_a_task_that_packs_documents_is_killed_at_each_of_its_writes(base: Path) -> None:
    """What waits to be packed with others is in memory alone; the next attempt packs the same documents together."""
    chunking = {"mode": "best_fit", "length": 64, "buffer_tokens": 200}
    changes = {"chunking": chunking, "shards": {"max_bytes": 300}, "corpus": {"include": ["*00.json"]}}
    changes["tasks"] = {"bytes": 10**6}
    writes: list[str] = []
    quiet = config_for(base, store=str(base / "packed-quiet"), **changes)
    watched = WatchedStore(
        open_target(quiet), lambda number, phase, operation, key: writes.append(key) if phase == "before" else None
    )
    preprocess_here(quiet, watched)  # type: ignore[arg-type]
    shards = [number for number, key in enumerate(writes) if key.endswith(".bin")]
    assert len(shards) > 2
    for number in (*shards, writes.index("receipts/task-000000.json")):
        config = config_for(base, store=str(base / f"packed-{number}"), **changes)
        store = WatchedStore(open_target(config), kill_at(number, "after"))
        assert in_child(lambda c=config, s=store: preprocess_here(c, s)) == SIGKILLED
        assert in_child(lambda c=config: preprocess_here(c)) == 0
        assert contents(open_store(config.store)) == contents(open_store(quiet.store))
        assert verify_store(open_store(config.store)).right


def test_a_payload_that_a_killed_attempt_left_is_replaced_not_trusted(base: Path) -> None:
    """A torn payload under the very name that the right one will have."""
    config = config_for(base, store=str(base / "torn"))
    good = preprocess_here(config_for(base, store=str(base / "model")))
    store = open_store(config.store)
    for shard in good.shards:
        store.put(shard.bin.key, b"torn")
    assert preprocess_here(config) == good
    assert verify_store(store).right
