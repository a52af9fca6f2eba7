"""The run's records beside the checkpoints in the mirror."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from checkpoint_helpers import fill, flip_byte, make_facts

from lmbatch.checkpoint import Checkpoints, records
from lmbatch.checkpoint.records import PIECE_BYTES
from lmbatch.errors import StoreError
from lmbatch.store import LocalStore
from lmbatch.train.attempts import ATTEMPTS_FILE
from lmbatch.train.folder import RunFolder
from lmbatch.train.metrics import METRICS_FILE


@pytest.fixture
def bucket(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "bucket")


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PIECE_BYTES", 100)


def write(run_dir: Path, rows: int) -> None:
    """A run's records after so many steps."""
    (run_dir / "tracking").mkdir(parents=True, exist_ok=True)
    (run_dir / "tokenizer").mkdir(exist_ok=True)
    (run_dir / "tokenizer" / "tokenizer.json").write_text("{}", encoding="utf-8")
    (run_dir / "tracking" / "id").write_text("abc\n", encoding="utf-8")
    for name in ("metrics.jsonl", "attempts.jsonl"):
        lines = [
            json.dumps({"step": step, "kind": "train", "words": "中文"}, ensure_ascii=False) for step in range(rows)
        ]
        (run_dir / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def save(run_dir: Path, bucket: LocalStore, *steps: int) -> None:
    with Checkpoints(LocalStore(run_dir), mirror=bucket) as checkpoints:
        for step in steps:
            write(run_dir, step)
            checkpoints.save(make_facts(step), fill(step))
            checkpoints.close()


def contents(run_dir: Path) -> dict[str, bytes]:
    found = [path for path in run_dir.rglob("*") if path.is_file() and "checkpoints" not in path.parts]
    return {path.relative_to(run_dir).as_posix(): path.read_bytes() for path in found}


def pieces(bucket: LocalStore) -> set[str]:
    return {info.key for info in bucket.list("records/")}


def test_the_names_are_those_of_the_run_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    paths = (folder.samples, folder.tracking / "id", folder.tokenizer / "x")
    relative = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert {METRICS_FILE, *relative[:2]} <= set(records.FILES)
    assert relative[2].startswith(records.FOLDER)
    assert records.LEDGER == ATTEMPTS_FILE


def test_all_of_it_comes_back(run_dir: Path, bucket: LocalStore, small_pieces: None) -> None:
    save(run_dir, bucket, 10, 20)
    before = contents(run_dir)
    shutil.rmtree(run_dir)
    pulled = records.pull(bucket, run_dir)
    assert pulled.step == 20
    assert set(pulled.paths) == set(before)
    assert contents(run_dir) == before


def test_a_log_that_grew_costs_its_growth(run_dir: Path, bucket: LocalStore, small_pieces: None) -> None:
    save(run_dir, bucket, 100)
    first = pieces(bucket)
    save(run_dir, bucket, 102)
    assert len(first) > 30
    assert len(pieces(bucket) - first) <= 4


def test_pieces_go_with_the_last_checkpoint_that_names_them(run_dir: Path, bucket: LocalStore) -> None:
    save(run_dir, bucket, 10)
    first = pieces(bucket)
    save(run_dir, bucket, 20)
    assert first < pieces(bucket)
    save(run_dir, bucket, 30)
    still_named = {key for key in first if key in pieces(bucket)}
    assert len(first - still_named) == 1  # the log of 10 steps; the tokenizer and the id are in every list
    shutil.rmtree(run_dir)
    assert records.pull(bucket, run_dir).step == 30


def test_nothing_goes_while_a_list_cannot_be_read(run_dir: Path, bucket: LocalStore) -> None:
    save(run_dir, bucket, 10, 20)
    bucket.put(records.index_key(20), b"{")
    before = pieces(bucket)
    records.sweep(bucket)
    assert pieces(bucket) == before


@pytest.mark.parametrize("damage", ["flipped", "missing", "list"])
def test_damaged_records_are_passed_over(run_dir: Path, bucket: LocalStore, damage: str, caplog) -> None:
    save(run_dir, bucket, 10, 20)
    index = json.loads(bucket.read(records.index_key(20)))
    (newest,) = next(file for file in index["files"] if file["path"] == "metrics.jsonl")["pieces"]
    if damage == "flipped":
        flip_byte(bucket.root / f"records/{newest}.gz", 15)
    elif damage == "missing":
        bucket.delete(f"records/{newest}.gz")
    else:
        bucket.put(records.index_key(20), b"{")
    shutil.rmtree(run_dir)
    assert records.pull(bucket, run_dir).step == 10
    assert len((run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 10
    assert newest in caplog.text or "step-00000020" in caplog.text


def test_a_list_cannot_write_anywhere_else(run_dir: Path, bucket: LocalStore, caplog) -> None:
    save(run_dir, bucket, 10)
    text = bucket.read(records.index_key(10)).decode()
    for path in ("tokenizer/../../../evil", "/etc/evil", "lock"):
        bucket.put(records.index_key(10), text.replace("tracking/id", path).encode())
        assert records.pull(bucket, run_dir.parent / "other") is None
        assert "no record of a run" in caplog.text
        caplog.clear()
    assert not (run_dir.parent / "other").exists()


def test_a_piece_is_never_more_than_it_may_be(run_dir: Path, bucket: LocalStore) -> None:
    import gzip
    import hashlib

    save(run_dir, bucket, 10)
    bomb = b"0" * (3 * PIECE_BYTES)
    name = hashlib.sha256(bomb).hexdigest()
    bucket.put(f"records/{name}.gz", gzip.compress(bomb))
    index = json.loads(bucket.read(records.index_key(10)))
    for file in index["files"]:
        file["pieces"] = [name]
    bucket.put(records.index_key(10), json.dumps(index).encode())
    shutil.rmtree(run_dir)
    assert records.pull(bucket, run_dir) is None


def test_a_torn_last_line_stays_behind(run_dir: Path, bucket: LocalStore) -> None:
    write(run_dir, 10)
    whole = (run_dir / "metrics.jsonl").read_bytes()
    with (run_dir / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 10, "lo')
    records.push(bucket, run_dir, 10)
    index = json.loads(bucket.read(records.index_key(10)))
    assert next(file["size"] for file in index["files"] if file["path"] == "metrics.jsonl") == len(whole)


def test_what_is_there_stays_and_the_ledger_comes_last(run_dir: Path, bucket: LocalStore, monkeypatch) -> None:
    """The ledger says that the records are there: a kill in between must not leave a folder that looks restored."""
    save(run_dir, bucket, 10)
    before = contents(run_dir)
    shutil.rmtree(run_dir)
    read = bucket.read

    def dies_late(key: str, *rest: int) -> bytes:
        if key.startswith("records/") and (run_dir / "metrics.jsonl").exists():
            raise StoreError("the node is gone")
        return read(key, *rest)

    monkeypatch.setattr(bucket, "read", dies_late)
    with pytest.raises(StoreError):
        records.pull(bucket, run_dir)
    assert not (run_dir / "attempts.jsonl").exists()
    monkeypatch.setattr(bucket, "read", read)
    (run_dir / "metrics.jsonl").write_text("mine\n", encoding="utf-8")
    assert "metrics.jsonl" not in records.pull(bucket, run_dir).paths
    assert contents(run_dir) == before | {"metrics.jsonl": b"mine\n"}


def test_one_record_is_read_without_the_others(run_dir: Path, bucket: LocalStore) -> None:
    save(run_dir, bucket, 10, 20)
    assert records.read_record(bucket, "metrics.jsonl") == (run_dir / "metrics.jsonl").read_bytes()
    assert records.read_record(bucket, "model.json") is None
