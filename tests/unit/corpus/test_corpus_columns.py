"""Parquet files and `datasets` folders: row groups, types, damage, splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmbatch.corpus import list_inputs, piece_bytes, probe, split_file
from lmbatch.errors import CorpusError
from lmbatch.store import LocalStore
from support.corpus_files import corpus, read_split, read_whole, rejected, texts

SOUND = [f"第{n}回" for n in range(100)]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    datasets.disable_progress_bars()


def parquet(tmp_path: Path, column: Any = SOUND, **options: Any) -> Any:
    pq.write_table(pa.table({"n": range(len(column)), "text": column}), tmp_path / "a.parquet", **options)
    return corpus(tmp_path, "parquet")


def test_pieces_are_row_groups(tmp_path: Path) -> None:
    config = parquet(tmp_path, row_group_size=10)
    store = LocalStore(tmp_path)
    [file] = list_inputs(store, config)
    facts = probe(store, config, file)
    total = sum(facts.row_group_bytes)
    for target in (1, total // 4, total // 3, total, total * 2):
        pieces = split_file(file, facts, config, target)
        assert len(pieces) == min(10, -(-total // target))
        assert (pieces[0].start, pieces[-1].end) == (0, 10)
        assert sum(piece_bytes(piece, facts) for piece in pieces) == total
        assert texts(read_split(config, target)) == SOUND


@pytest.mark.parametrize(
    "column",
    [
        pa.array(SOUND, pa.large_string()),
        pa.array(SOUND).dictionary_encode(),
        pa.array([text.encode() for text in SOUND], pa.binary()),
    ],
    ids=["large_string", "dictionary", "binary"],
)
def test_every_type_of_text_is_read(tmp_path: Path, column: pa.Array) -> None:
    assert texts(read_whole(parquet(tmp_path, column))) == SOUND


def test_null_texts_are_set_aside(tmp_path: Path) -> None:
    records = read_whole(parquet(tmp_path, ["a", None, "b"]))
    assert texts(records) == ["a", "b"]
    assert [(r.reason, r.position) for r in rejected(records)] == [("null_text", 1)]


def test_a_wrong_column_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    config = parquet(tmp_path)
    for name in ("content", "n"):
        with pytest.raises(CorpusError, match=r"n \(int64\), text \(string\)"):
            read_whole(config.model_copy(update={"text_fields": (name,)}))


def test_every_row_of_a_damaged_group_is_counted(tmp_path: Path) -> None:
    config = parquet(tmp_path, row_group_size=20, compression="zstd", use_dictionary=False)
    place = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(2).column(1).data_page_offset
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[place : place + 40] = b"\xff" * 40
    (tmp_path / "a.parquet").write_bytes(data)
    records = read_whole(config)
    assert texts(records) == SOUND[:40] + SOUND[60:]
    assert [(r.reason, r.position) for r in rejected(records)] == [("damaged_rows", n) for n in range(40, 60)]
    assert read_split(config, 1) == records


def test_a_file_without_a_footer_is_refused(tmp_path: Path) -> None:
    config = parquet(tmp_path)
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[:-100])
    with pytest.raises(CorpusError, match=r"a\.parquet: it cannot be read as Parquet"):
        read_whole(config)


# ── datasets ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_dataset_of_several_files_keeps_its_order_and_its_caches_out(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": SOUND}).save_to_disk(tmp_path / "d", num_shards=3)
    (tmp_path / "d" / "cache-1234.arrow").write_bytes(b"not mine")
    for include in ("**", "d", "d/*", "**/*.arrow"):
        assert texts(read_whole(corpus(tmp_path, "dataset", include=(include,)))) == SOUND
    assert texts(read_whole(corpus(tmp_path / "d", "dataset", include=("**",)))) == SOUND


def test_a_dataset_dict_needs_its_split_named(tmp_path: Path) -> None:
    train = datasets.Dataset.from_dict({"text": SOUND})
    datasets.DatasetDict(train=train, test=train.select([0]).flatten_indices()).save_to_disk(tmp_path / "d")
    with pytest.raises(CorpusError, match="several splits: test, train"):
        read_whole(corpus(tmp_path, "dataset"))
    assert texts(read_whole(corpus(tmp_path, "dataset", dataset_split="train"))) == SOUND
    assert texts(read_whole(corpus(tmp_path / "d", "dataset", dataset_split="test"))) == SOUND[:1]
    with pytest.raises(CorpusError, match="no split 'valid'.*there is test, train"):
        read_whole(corpus(tmp_path, "dataset", dataset_split="valid"))


def test_an_indices_mapping_is_refused_with_its_remedy(tmp_path: Path) -> None:
    data = datasets.Dataset.from_dict({"text": SOUND}).shuffle(seed=1)
    data.save_to_disk(tmp_path / "fine")
    state = json.loads((tmp_path / "fine" / "state.json").read_text())
    state["_indices_files"] = [{"filename": "indices.arrow"}]
    (tmp_path / "fine" / "state.json").write_text(json.dumps(state))
    with pytest.raises(CorpusError, match="indices mapping") as caught:
        read_whole(corpus(tmp_path, "dataset"))
    assert "flatten_indices()" in str(caught.value.remedy)


def test_a_state_that_names_no_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("[]")
    with pytest.raises(CorpusError, match=r"state\.json: does not name the data files"):
        read_whole(corpus(tmp_path, "dataset"))


def test_a_truncated_stream_keeps_what_precedes(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": SOUND * 50}).save_to_disk(tmp_path, num_shards=1)
    [path] = tmp_path.glob("*.arrow")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    records = read_whole(corpus(tmp_path, "dataset"))
    assert 1000 <= len(texts(records)) < 5000
    assert [refusal.reason for refusal in rejected(records)] == ["damaged_file"]
