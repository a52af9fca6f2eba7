"""What other tools get: Parquet that ``datasets`` loads, and shards that Megatron-LM reads."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from datasets import load_dataset
from hypothesis import given
from hypothesis import strategies as st

from lmbatch.cli import cli
from lmbatch.errors import ShardError, UsageError
from lmbatch.interchange import ExportOptions, export_parquet, rows, shard_prefixes
from lmbatch.loader import ShardCache
from lmbatch.loader.locks import locked
from lmbatch.shards import Shard, encode_index, parse_index
from lmbatch.store import LocalStore, Manifest, open_store
from support.drive import preprocess_here
from support.remote_store import RemoteStore
from support.wudao import config_for, text_of, write_files, write_tokenizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import get_blend_from_list


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("interchange")
    write_files(folder / "raw", files=2)
    write_tokenizer(folder / "tok")
    return folder


@pytest.fixture(scope="module")
def packed(base) -> tuple[LocalStore, Manifest]:
    return open_store(str(base / "packed")), preprocess_here(config_for(base, store=str(base / "packed")))


@pytest.fixture(scope="module")
def lines(base) -> tuple[LocalStore, Manifest]:
    config = config_for(base, store=str(base / "lines"), chunking={"mode": "lines", "length": 16})
    return open_store(str(base / "lines")), preprocess_here(config)


def sequences(store, manifest, split="train") -> list[list[int]]:
    shards = [Shard.open(store.root / e.bin.key, store.root / e.idx.key) for e in manifest.of(split)]
    return [shard.sequence(n).tolist() for shard in shards for n in range(shard.index.sequences)]


def export(corpus, out: Path, split="train", **options):
    store, manifest = corpus
    cache = ShardCache(store, out.parent / "cache", 10**9)
    return export_parquet(store, manifest, split, out, cache, ExportOptions(**options))


def read(out: Path, column="input_ids") -> list:
    return [value for path in sorted(out.glob("*.parquet")) for value in pq.read_table(path)[column].to_pylist()]


def test_datasets_loads_the_documents_of_every_split(packed, tmp_path):
    for split in ("train", "validation"):
        export(packed, tmp_path / "out", split, rows_per_file=20)
    data = load_dataset("parquet", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "hf"))
    assert set(data) == {"train", "validation"}
    for split in data:
        assert data[split]["input_ids"][:] == sequences(*packed, split)
        assert str(data[split].features["input_ids"]) == "List(Value('int32'))"


def test_an_export_of_a_cut_corpus_has_one_example_a_row(lines, tmp_path):
    done = export(lines, tmp_path / "out")
    assert read(tmp_path / "out") == sequences(*lines)
    assert done.rows == len(sequences(*lines)) > lines[1].ledger.documents["train"]
    with pytest.raises(UsageError, match="cut into examples"):
        export(lines, tmp_path / "other", sequence_length=8)


@pytest.mark.parametrize("length", [1, 7, 32])
def test_samples_are_what_training_sees_unshuffled(packed, tmp_path, length):
    export(packed, tmp_path / "out", sequence_length=length)
    stream = list(itertools.chain.from_iterable(sequences(*packed)))
    count = (len(stream) - 1) // length
    assert read(tmp_path / "out") == [stream[at * length : (at + 1) * length] for at in range(count)]


@pytest.mark.parametrize("corpus", ["packed", "lines"])
def test_origins_lead_back_to_the_records(base, tmp_path, request, monkeypatch, corpus):
    monkeypatch.setattr(rows, "_MOST_ROWS", 3)
    export(request.getfixturevalue(corpus), tmp_path / "out", origins=True)
    table = [dict(zip(("ids", "path", "position", "id"), row, strict=True)) for row in zip(
        *(read(tmp_path / "out", name) for name in ("input_ids", "path", "position", "id")), strict=True)]  # fmt: skip
    assert len({row["id"] for row in table}) == (request.getfixturevalue(corpus)[1].ledger.documents["train"])
    for row in table:
        record = json.JSONDecoder().raw_decode((base / "raw" / row["path"]).read_bytes()[row["position"] :].decode())[0]
        assert record["uniqueKey"] == row["id"]
        assert record["content"] == text_of(record["id"])
    with pytest.raises(UsageError, match="no one origin"):
        export(request.getfixturevalue("packed"), tmp_path / "s", origins=True, sequence_length=4)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 20), st.integers(1, 6), st.data())
def test_runs_are_bounded_and_leave_nothing_out(lengths, most_tokens, most_rows, data):
    index = parse_index(encode_index(lengths, "uint16"), "x")
    first = data.draw(st.integers(0, len(lengths)))
    end = data.draw(st.integers(first, len(lengths)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_MOST_TOKENS", most_tokens)
        patch.setattr(rows, "_MOST_ROWS", most_rows)
        runs = list(rows.bounded_runs(index, first, end))
    assert [n for start, stop in runs for n in range(start, stop)] == list(range(first, end))
    for start, stop in runs:
        assert stop - start <= most_rows
        assert sum(lengths[start:stop]) <= most_tokens or stop == start + 1


@pytest.mark.parametrize("origins", [False, True])
def test_from_object_storage_the_cache_stays_bounded(packed, tmp_path, origins):
    store, manifest = packed
    sizes = [e.bin.size + e.idx.size + e.docs.size * origins for e in manifest.of("train")]
    assert len(sizes) > 2
    cache = ShardCache(RemoteStore(store.root), tmp_path / "cache", max(sizes))
    export_parquet(RemoteStore(store.root), manifest, "train", tmp_path / "out", cache, ExportOptions(origins=origins))
    assert read(tmp_path / "out") == sequences(*packed)
    held = sum(path.stat().st_size for path in (tmp_path / "cache" / "shards").iterdir())
    assert 0 < held <= max(sizes) < sum(sizes)


# ── interrupted, and what must not be mixed ──────────────────────────────────────────────────────────────────────────
def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*.parquet")}


def test_an_interrupted_export_goes_on_and_ends_with_the_same_files(packed, tmp_path, monkeypatch):
    straight = export(packed, tmp_path / "straight", rows_per_file=10)
    out, original = tmp_path / "out", rows.SequenceRows.batches

    def dying(self, first, end):
        for batch in original(self, first, end):
            yield batch
            if end > 30:
                raise KeyboardInterrupt

    monkeypatch.setattr(rows.SequenceRows, "batches", dying)
    with pytest.raises(KeyboardInterrupt):
        export(packed, out, rows_per_file=10)
    assert sorted(contents(out)) == sorted(straight.files)[:3]
    (out / ".lmbatch-tmp-of-a-killed-process").write_bytes(b"half")
    monkeypatch.setattr(rows.SequenceRows, "batches", original)
    done = export(packed, out, rows_per_file=10)
    assert done.files_written == len(straight.files) - 3
    assert contents(out) == contents(tmp_path / "straight")
    assert not list(out.glob(".lmbatch-tmp-*"))
    assert export(packed, out, rows_per_file=10).files_written == 0


def test_files_of_another_export_are_never_mixed_in(packed, lines, tmp_path):
    done = export(packed, tmp_path / "out", rows_per_file=10)
    for corpus, options in ((lines, {"rows_per_file": 10}), (packed, {}), (packed, {"rows_per_file": 9})):
        with pytest.raises(UsageError, match="is no file of this export"):
            export(corpus, tmp_path / "out", **options)
    export(lines, tmp_path / "same")
    with pytest.raises(UsageError, match="is no file of this export"):  # one file in both, of the same name
        export(packed, tmp_path / "same")
    (tmp_path / "out" / done.files[0]).write_bytes(b"PAR1 no more")
    with pytest.raises(UsageError, match="is no file of this export"):
        export(packed, tmp_path / "out", rows_per_file=10)


def test_two_exports_into_one_folder_do_not_meet(packed, tmp_path):
    with locked(tmp_path / "out" / ".lmbatch-export.lock"), pytest.raises(UsageError, match="another export"):
        export(packed, tmp_path / "out")


@pytest.mark.parametrize("part", ["bin", "idx", "docs"])
def test_a_damaged_shard_is_not_handed_on(base, tmp_path, part):
    config = config_for(base, store=str(tmp_path / "store"))
    store, manifest = open_store(config.store), preprocess_here(config)
    key = getattr(manifest.of("train")[2], part).key
    data = bytearray(store.read(key))
    data[40] ^= 1
    store.put(key, bytes(data))
    with pytest.raises(ShardError, match="sha256"):
        export((store, manifest), tmp_path / "out", origins=True)
    assert contents(tmp_path / "out") == {}


# ── Megatron-LM, GPT-NeoX, and the commands ──────────────────────────────────────────────────────────────────────────
def lmbatch(*arguments: object):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_megatron_takes_the_paths_and_finds_every_token(packed):
    printed = lmbatch("data", "paths", packed[0].root).output
    prefixes, weights = get_blend_from_list(printed.split())
    found = [IndexedDataset(prefix) for prefix in prefixes]
    assert [dataset[n].tolist() for dataset in found for n in range(len(dataset))] == sequences(*packed)
    assert weights == [int(np.sum(dataset.sequence_lengths)) for dataset in found]
    both = json.loads(lmbatch("data", "paths", packed[0].root, "--split", "validation", "--json").output)
    assert both == {
        "prefixes": [str(packed[0].root / e.bin.key).removesuffix(".bin") for e in packed[1].of("validation")],
        "weights": [e.tokens for e in packed[1].of("validation")],
    }


def test_what_megatron_cannot_map_is_refused(packed, tmp_path):
    (tmp_path / "a b").symlink_to(packed[0].root)
    with pytest.raises(UsageError, match="white space"):
        shard_prefixes(LocalStore(tmp_path / "a b"), packed[1], "train")
    with pytest.raises(UsageError, match="local or shared folder"):
        shard_prefixes(RemoteStore(packed[0].root), packed[1], "train")


def test_the_export_command(packed, tmp_path):
    command = ("data", "export", packed[0].root, tmp_path / "out", "--cache", tmp_path / "cache")
    told = json.loads(lmbatch(*command, "--json").output)
    assert [(each["split"], each["rows"], each["files_written_now"]) for each in told["splits"]] == [
        (split, len(sequences(*packed, split)), 1) for split in ("train", "validation")
    ]
    assert told["digest"] == packed[1].digest
    again = lmbatch(*command)
    assert f"train: {len(sequences(*packed)):,} rows in 1 files, 0 written now" in again.output
    assert "--data-path" in lmbatch("data", "paths", "--help").output
