"""One byte of one stored object is changed, anywhere: verification finds it, or it means nothing; repair undoes it.

The seed is random, and is told when a test fails; LMBATCH_TEST_SEED sets it.
"""

from __future__ import annotations

import json
import os
import random
import secrets
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from lmbatch.errors import PlanError
from lmbatch.preprocess import load_plan, repair_store, verify_store
from lmbatch.store import Store, open_store
from support.drive import contents, preprocess_here
from support.wudao import config_for, record_of, write_files, write_tokenizer

SEED = int(os.environ.get("LMBATCH_TEST_SEED") or secrets.randbelow(10**6))
FLIPS = int(os.environ.get("LMBATCH_TEST_FLIPS") or 45)
ENDINGS = ("plan.json", "manifest.json", ".bin", ".idx", ".parquet")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_files(tmp_path / "raw", files=2, documents=15)
    bad = [{"id": 1}, record_of(99)]
    (tmp_path / "raw" / "zz-bad.json").write_text(json.dumps(bad, ensure_ascii=False), encoding="utf-8")
    write_tokenizer(tmp_path / "tok")
    return tmp_path


def kind_of(key: str) -> str:
    """Objects of one kind are damaged alike; each kind gets its share of the flips."""
    return next((end for end in ENDINGS if key.endswith(end)), key.partition("/")[0])


def found(store: Store) -> bool:
    """Whether verification finds anything, or refuses to begin."""
    try:
        return not verify_store(store).right
    except PlanError:
        return True


def repair(base: Path, store: Store) -> None:
    """What `lmbatch repair` does, or for a damaged plan the same `lmbatch preprocess` again."""
    with suppress(PlanError):
        repair_store(store, load_plan(store), verify_store(store))
    preprocess_here(config_for(base))


def test_every_flip_is_found_or_means_nothing_and_is_repaired(base: Path) -> None:
    quiet = preprocess_here(config_for(base))
    store = open_store(str(base / "store"))
    whole = contents(store)
    plan = load_plan(store)
    keys: dict[str, list[str]] = {}
    for info in store.list():
        if info.size and not info.key.startswith(("estimates/", "heartbeats/", "DATA_CARD.md")):  # for people to read
            keys.setdefault(kind_of(info.key), []).append(info.key)
    luck, met = random.Random(SEED), Counter[tuple[str, bool]]()
    for number in range(FLIPS):
        kind = sorted(keys)[number % len(keys)]
        key = luck.choice(keys[kind])
        data = store.read(key)
        at, change = luck.randrange(len(data)), luck.randrange(1, 256)
        store.put(key, data[:at] + bytes([data[at] ^ change]) + data[at + 1 :])
        where = (SEED, key, at, change, data[max(0, at - 40) : at + 20])
        seen = found(store)
        met[kind, seen] += 1
        if seen:
            repair(base, store)
        else:  # nothing of the result was touched
            assert contents(store) == whole, where
            assert load_plan(store).fingerprint == plan.fingerprint, where
            store.put(key, data)
        assert contents(store) == whole, where
    assert verify_store(store).digest == quiet.digest, SEED
    assert set(keys) >= {"receipts", "tokenizer", "quarantine", *ENDINGS}, SEED
    assert sum(count for (_, seen), count in met.items() if seen) > FLIPS / 2, (SEED, met)
