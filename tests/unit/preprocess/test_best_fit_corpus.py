"""A corpus packed by best fit, from raw files to what training, verification and others make of its shards."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lmbatch.cli.preprocess import thrown_away
from lmbatch.config import CacheConfig, ChunkingConfig, PreprocessConfig
from lmbatch.errors import CorpusError, ShardError, UsageError
from lmbatch.interchange import ExportOptions, export_parquet, what_is_kept
from lmbatch.interchange.kept import kept_tokens
from lmbatch.loader import ShardCache, Span, documents_of
from lmbatch.preprocess import build_manifest, load_plan, read_receipts, verify_store
from lmbatch.preprocess.packer import pack
from lmbatch.shards import PackedBatch, Shard, ShardWriter, all_rows, verify_shard
from lmbatch.store import Manifest, ShardEntry, Store, open_store
from lmbatch.tokens import load_tokenizer
from support.drive import contents, preprocess_here
from support.packed import batch_of
from support.wudao import config_for, text_of, write_files, write_tokenizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from megatron.core.datasets.indexed_dataset import IndexedDataset

LENGTH = 64
BUFFER = 500  # several times in a task
TEXTS = [text_of(number) for number in range(80)]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("best-fit")
    write_files(folder / "raw", files=2)
    write_tokenizer(folder / "tok")
    preprocess_here(config_of(folder))
    return folder


def config_of(base: Path, store: str | None = None, **changes) -> PreprocessConfig:
    chunking = {"mode": "best_fit", "length": LENGTH, "buffer_tokens": BUFFER}
    settings = {"chunking": chunking, "store": store or str(base / "store"), "shards": {"max_bytes": 800}}
    return config_for(base, tasks={"bytes": 20_000}, **settings | changes)


@pytest.fixture
def store(base) -> Store:
    return open_store(str(base / "store"))


@pytest.fixture
def manifest(store) -> Manifest:
    return build_manifest(load_plan(store), read_receipts(store, load_plan(store).tasks))


def shards(store: Store, manifest: Manifest) -> Iterator[tuple[ShardEntry, Shard]]:
    for entry in manifest.shards:
        bin_path, idx_path = store.local_path(entry.bin.key), store.local_path(entry.idx.key)
        assert bin_path is not None
        assert idx_path is not None
        yield entry, Shard.open(bin_path, idx_path)


def examples_in(store: Store, manifest: Manifest) -> list[list[int]]:
    return [shard.sequence(n).tolist() for _, shard in shards(store, manifest) for n in range(shard.index.sequences)]


def ids_of(base: Path, text: str) -> list[int]:
    tokenizer = load_tokenizer(base / "tok")
    return [*tokenizer.backend.encode(text).ids, tokenizer.eod_id]


def text_at(base: Path, path: str, position: int) -> str:
    data = (base / "raw" / path).read_bytes()[position:]
    return json.JSONDecoder().raw_decode(data.decode())[0]["content"]


def pieces(ids: list[int]) -> list[list[int]]:
    return [ids[at : at + LENGTH] for at in range(0, len(ids), LENGTH)]


def test_the_examples_hold_every_document_once_and_cut_only_long_ones(base, store, manifest):
    eod = manifest.tokenizer.eod_id
    found = []
    for example in examples_in(store, manifest):
        assert 0 < len(example) <= LENGTH
        ends = [at + 1 for at, token in enumerate(example[:-1]) if token == eod]
        found += [part.tolist() for part in np.split(np.array(example), ends)]
    documents = [ids_of(base, text) for text in TEXTS]
    assert any(len(ids) > LENGTH for ids in documents)
    assert any(len(ids) < LENGTH / 2 for ids in documents)
    assert sorted(found) == sorted(part for ids in documents for part in pieces(ids))
    assert len(examples_in(store, manifest)) < len(TEXTS)


def test_the_ledger_counts_every_token_and_the_padding_apart(store, manifest):
    tokens = manifest.ledger.tokens
    assert tokens is not None
    assert (tokens.eod, tokens.lost) == (len(TEXTS), 0)
    assert tokens.written == sum(shard.tokens for shard in manifest.shards)
    assert tokens.padding == sum(LENGTH - len(example) for example in examples_in(store, manifest)) > 0
    assert manifest.ledger.documents_out == len(TEXTS) == sum(shard.documents for shard in manifest.shards)
    assert manifest.chunking == ChunkingConfig(mode="best_fit", length=LENGTH, buffer_tokens=BUFFER)
    assert f"0 thrown away (0.00%), {tokens.padding} of padding while training" in thrown_away(tokens)
    assert "whole documents" in store.read("DATA_CARD.md").decode()


def test_documents_that_were_packed_together_stay_in_one_shard(store, manifest):
    assert len(manifest.of("train")) > len(load_plan(store).tasks)
    for entry in manifest.shards:
        with store.open(entry.docs.key) as stream:
            assert all_rows(stream, "").documents == entry.documents


@pytest.mark.parametrize("split", ["train", "validation"])
def test_documents_are_found_behind_an_example(base, store, manifest, split):
    seen = set()
    for number, (entry, shard) in enumerate(
        (entry, shard) for entry, shard in shards(store, manifest) if entry.split == split
    ):
        for sequence in range(shard.index.sequences):
            start, length = shard.index.place(sequence)
            origins = documents_of(store, manifest, split, [Span(number, start, length)])
            own = [ids_of(base, text_at(base, origin.path, origin.position)) for origin in origins]
            expected = shard.sequence(sequence).tolist()
            assert any(part in pieces(own[0]) for part in (expected, expected[: len(own[0])], pieces(own[0])[-1]))
            assert sum(min(len(ids), LENGTH) for ids in own) >= length
            rest = expected
            for ids in own:  # parts stand in the order of their documents
                part = next(part for part in pieces(ids) if rest[: len(part)] == part)
                rest = rest[len(part) :]
            assert rest == []
            seen.update((origin.path, origin.position) for origin in origins)
        whole = documents_of(store, manifest, split, [Span(number, 0, entry.tokens)])
        assert len(whole) == len({(o.path, o.position) for o in whole}) == entry.documents
        with store.open(entry.docs.key) as stream:
            rows = all_rows(stream, "")
        records = np.stack([rows.piece, rows.position])
        firsts = np.unique(records, axis=1, return_index=True)[1]  # a document that was cut has several rows
        assert [origin.document for origin in whole] == sorted(firsts.tolist())
    assert len(seen) == manifest.ledger.documents[split]


def test_doing_the_tasks_in_another_order_gives_the_same_bytes(base, store, tmp_path):
    preprocess_here(config_of(base, store=str(tmp_path)), shuffle=3)
    assert contents(open_store(str(tmp_path))) == contents(store)


def test_a_store_verifies(store):
    assert verify_store(store).problems == {}


def test_megatron_reads_an_example_as_one_sequence(store, manifest):
    for entry, shard in shards(store, manifest):
        path = store.local_path(entry.bin.key)
        dataset = IndexedDataset(str(path).removesuffix(".bin"))
        assert len(dataset) == entry.sequences == shard.index.sequences
        assert [dataset[n].tolist() for n in range(len(dataset))] == [
            shard.sequence(n).tolist() for n in range(len(dataset))
        ]
        assert dataset.document_indices.tolist() == list(range(len(dataset) + 1))


def test_parquet_has_a_row_for_each_example_but_no_origins(store, manifest, tmp_path):
    import pyarrow.parquet as pq

    cache = ShardCache(store, tmp_path / "cache", CacheConfig().max_bytes)
    export_parquet(store, manifest, "train", tmp_path / "out", cache, ExportOptions())
    (path,) = (tmp_path / "out").glob("*.parquet")
    train = [shard.sequence(n).tolist() for entry, shard in shards(store, manifest) if entry.split == "train"
             for n in range(shard.index.sequences)]  # fmt: skip
    assert pq.read_table(path).column("input_ids").to_pylist() == train
    with pytest.raises(UsageError, match="has no one origin"):
        export_parquet(store, manifest, "train", tmp_path / "o", cache, ExportOptions(origins=True))


def test_it_keeps_every_token_of_a_corpus(store, manifest):
    assert kept_tokens(np.array([5, 2000, 7]), ChunkingConfig(mode="best_fit", length=9)) == 2012
    with pytest.raises(UsageError, match="not by document"):
        what_is_kept(manifest, {}, ChunkingConfig(mode="truncate", length=9))


# ── guards ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def packed_shard(folder: Path, **changes) -> tuple[Store, ShardEntry]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    packed = pack([batch_of([3, 7, 2, 4])], 5)
    values = {name: getattr(packed, name) for name in PackedBatch.__slots__} | changes
    writer = ShardWriter(folder, "s", "uint16", examples=True)
    writer.extend_packed(PackedBatch(**values))
    return open_store(str(folder)), writer.close().entry("train", "s")


def problems_of(store: Store, entry: ShardEntry) -> str:
    chunking = ChunkingConfig(mode="best_fit", length=5)
    return "; ".join(verify_shard(store, entry, dtype="uint16", largest_id=9999, eod_id=0, chunking=chunking))


def test_a_sound_shard_has_no_problems(tmp_path):
    store, entry = packed_shard(tmp_path / "s")
    assert problems_of(store, entry) == ""
    assert (entry.documents, entry.sequences, entry.tokens) == (4, 4, 16)


def test_an_example_that_does_not_end_with_a_document_is_found(tmp_path):
    packed = pack([batch_of([3, 7, 2, 4])], 5)
    flat = packed.flat.copy()
    last = int(np.cumsum(packed.lengths)[packed.lengths < 5][0]) - 1
    flat[last] = 77
    assert "ends with token 77, not with EOD (0) (1 such" in problems_of(*packed_shard(tmp_path / "s", flat=flat))


def test_another_number_of_documents_is_found(tmp_path):
    found = problems_of(*packed_shard(tmp_path / "s", documents=5))
    assert "parts of 4 documents, the manifest says 5" in found


def test_origins_of_other_parts_are_found(tmp_path):
    store, entry = packed_shard(tmp_path / "s")
    packed = pack([batch_of([3, 7, 2, 4])], 5)
    other = tmp_path / "other"
    other.mkdir()
    for tokens, what in (([15, 1], "no document ends where example 0 does"), ([5, 5], "its rows sum to 10 tokens")):
        writer = ShardWriter(other, "s", "uint16", examples=True)
        numbers = list(range(len(tokens)))
        rows = PackedBatch(
            flat=packed.flat[: sum(tokens)], lengths=np.array(tokens), tokens=np.array(tokens), documents=len(tokens),
            text_bytes=1, pieces=numbers, positions=numbers, ids=[None] * len(tokens),
        )  # fmt: skip
        writer.extend_packed(rows)
        docs = writer.close().entry("train", "s").docs
        store.put("s.docs.parquet", (other / "s.docs.parquet").read_bytes())
        assert what in problems_of(store, entry.model_copy(update={"docs": docs, "documents": len(tokens)}))


def test_examples_that_do_not_hold_their_parts_are_not_written(tmp_path):
    with pytest.raises(ShardError, match="examples of other lengths"):
        packed_shard(tmp_path / "s", lengths=np.array([4, 5, 5, 2]))
    with pytest.raises(ShardError, match="examples of other lengths"):
        ShardWriter(tmp_path, "t", "uint16").extend_packed(pack([batch_of([3])], 5))


@pytest.mark.parametrize("change", [1, None])
def test_a_receipt_with_other_padding_makes_no_manifest(store, change):
    plan = load_plan(store)
    receipts = read_receipts(store, plan.tasks)
    name, receipt = next(iter(receipts.items()))
    tokens = receipt.ledger.tokens
    assert tokens is not None
    padding = None if change is None else (tokens.padding or 0) + change
    ledger = receipt.ledger.model_copy(update={"tokens": tokens.model_copy(update={"padding": padding})})
    with pytest.raises(CorpusError, match="tokens of padding are told of"):
        build_manifest(plan, receipts | {name: receipt.model_copy(update={"ledger": ledger})})
