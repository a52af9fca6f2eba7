"""Corpora that were cut into examples: a sample is one of them, padded."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from loader_helpers import EOD, bytes_in_cache, data_config

from lmbatch.config import ChunkingConfig
from lmbatch.errors import ConfigError, ShardError
from lmbatch.loader import BatchLoader, documents_of, open_train_data
from lmbatch.loader import data as data_module
from lmbatch.shards import ShardWriter
from lmbatch.store import (
    MANIFEST_KEY,
    Ledger,
    LocalStore,
    Manifest,
    PieceReceipt,
    Receipt,
    ShardEntry,
    TokenizerEntry,
    to_json,
)
from support.remote_store import RemoteStore

LONGEST = 9  # a sample of sequence_length 8
# The examples of each document of each shard, by their tokens.
TRAIN = [[[9, 2], [4]], [[5]], [[9], [9, 9, 3], [2, 2]], [[7, 7, 7, 7, 7]], [[6], [3], [8]]]
VALIDATION = [[[4, 9], [2]], [[3]]]
BATCH = 12


def put_shard(root: Path, split: str, number: int, documents: list[list[int]]) -> ShardEntry:
    stem = f"shards/{split}/task-{number:06d}-00-abc"
    (root / stem).parent.mkdir(parents=True, exist_ok=True)
    writer = ShardWriter((root / stem).parent, Path(stem).name, "uint16", examples=True)
    for at, lengths in enumerate(documents):
        ids = np.arange(sum(lengths)) + 100 * (10 * number + at) + 10
        ids[np.cumsum(lengths) - 1] = EOD
        writer.append(ids, piece=0, position=at, id=f"{number}:{at}", text_bytes=1, lengths=lengths)
    return writer.close().entry("train" if split == "train" else "validation", stem)


@pytest.fixture
def corpus(tmp_path) -> tuple[LocalStore, Manifest]:
    root = tmp_path / "store"
    store = LocalStore(root)
    parts = [("train", documents) for documents in TRAIN] + [("validation", documents) for documents in VALIDATION]
    entries = []
    for number, (split, documents) in enumerate(parts):
        entries.append(put_shard(root, split, number, documents))
        piece = PieceReceipt(path="甲.json", start=0, end=9, first_position=0, end_position=9, records=1)
        receipt = Receipt(
            task=f"task-{number:06d}", plan="p", attempt="a", engine="e", pieces=(piece,), shards=(entries[-1],),
            ledger=Ledger(), seconds=0, cpu_seconds=0, peak_memory_bytes=0, input_bytes=0,
        )  # fmt: skip
        store.put(f"receipts/task-{number:06d}.json", to_json(receipt))
    manifest = Manifest(
        corpus="c", config="f", dtype="uint16", shards=tuple(entries), ledger=Ledger(),
        chunking=ChunkingConfig(mode="lines", length=LONGEST),
        tokenizer=TokenizerEntry(fingerprint="t", size=9000, largest_id=8999, eod_token="<eod>", eod_id=EOD),
    ).sealed()  # fmt: skip
    store.put(MANIFEST_KEY, to_json(manifest))
    return store, manifest


def all_examples(store: LocalStore, manifest: Manifest, shape: list[list[list[int]]], split: str = "train"):
    found = []
    for entry, documents in zip(manifest.of(split), shape, strict=True):
        tokens = np.frombuffer(store.read(entry.bin.key), "<u2").tolist()
        for length in itertools.chain.from_iterable(documents):
            found.append(tuple(tokens[:length]))
            tokens = tokens[length:]
    return found


def unpadded(batch):
    return [tuple(row[:length].tolist()) for row, length in zip(batch.tokens, batch.lengths, strict=True)]


def take(config, steps, **options):
    with open_train_data(config, seed=1) as data:
        options = {"batch_size": BATCH, "micro": 1} | options
        with BatchLoader(data.order, data.reader, **options) as loader:
            return list(itertools.islice(loader, steps))


def samples_of(steps):
    return [
        (n, row)
        for step in steps
        for batch in step.batches
        for n, row in zip(batch.samples, unpadded(batch), strict=True)
    ]


@pytest.mark.parametrize("shuffle", ["global", "windowed"])
def test_every_epoch_has_each_example_once_in_another_order(corpus, tmp_path, shuffle):
    store, manifest = corpus
    expected = Counter(all_examples(store, manifest, TRAIN))
    count = sum(expected.values())
    assert count == manifest.sequences("train") == 18
    rows = [row for _, row in samples_of(take(data_config(store, tmp_path, shuffle=shuffle, window_shards=2), 6))]
    assert Counter(rows[:count]) == Counter(rows[count : 2 * count]) == expected
    assert rows[:count] != rows[count : 2 * count]


@pytest.mark.parametrize("shuffle", ["global", "windowed"])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_stream_is_the_same_for_every_world_size_and_from_any_sample_on(corpus, tmp_path, shuffle, world):
    config = data_config(corpus[0], tmp_path, shuffle=shuffle, window_shards=2)
    whole = dict(samples_of(take(config, 8)))
    for start in (0, 5, 17, 18, 20):
        ranks = [take(config, 4, start_sample=start, rank=rank, world_size=world, micro=2) for rank in range(world)]
        found = dict(pair for steps in ranks for pair in samples_of(steps))
        assert found == {n: whole[n] for n in range(start, start + 4 * BATCH)}


def test_padding_is_eod_and_is_predicted_by_nothing(corpus, tmp_path):
    batch = take(data_config(corpus[0], tmp_path), 1, micro=BATCH)[0].batches[0]
    assert batch.tokens.shape == (BATCH, 9)
    assert batch.labels().shape == (BATCH, 8)
    for row, labels, length in zip(batch.tokens, batch.labels(), batch.lengths, strict=True):
        assert row[length - 1] == EOD  # the example's own EOD, which is predicted
        assert (row[length:] == EOD).all()
        assert labels.tolist() == [*row[1:length].tolist(), *[-100] * (9 - length)]
    assert batch.targets == int((batch.labels() != -100).sum()) == int((batch.lengths - 1).sum())


def test_a_longer_sequence_length_only_pads_more(corpus, tmp_path):
    short = samples_of(take(data_config(corpus[0], tmp_path), 3))
    assert samples_of(take(data_config(corpus[0], tmp_path, sequence_length=20), 3)) == short


def test_examples_that_do_not_fit_are_refused_with_both_numbers(corpus, tmp_path):
    with pytest.raises(ConfigError) as error:
        open_train_data(data_config(corpus[0], tmp_path, sequence_length=7), seed=1)
    assert "up to 9 tokens" in error.value.message
    assert "data.sequence_length 7 has 8" in error.value.message
    assert "data.sequence_length to 8 or more" in (error.value.remedy or "")


def test_evaluation_sees_the_first_examples_in_their_order(corpus, tmp_path):
    store, manifest = corpus
    expected = all_examples(store, manifest, VALIDATION, "validation")
    with open_train_data(data_config(store, tmp_path), seed=1, split="validation") as data:
        parts = [list(data.evaluation(micro=2, batches=9, rank=rank, world_size=2)) for rank in range(2)]
        batches = sorted((batch for part in parts for batch in part), key=lambda batch: batch.first_sample)
        assert [row for batch in batches for row in unpadded(batch)] == expected
        assert [len(batch.samples) for batch in batches] == [2, 2]
        assert next(iter(data.evaluation(micro=1, batches=1))).targets == len(expected[0]) - 1


def test_samples_are_traced_to_their_documents(corpus, tmp_path):
    store, manifest = corpus
    with open_train_data(data_config(store, tmp_path), seed=1) as data:
        for sample, row in samples_of(take(data_config(store, tmp_path), 3)):
            (origin,) = documents_of(store, manifest, "train", data.spans(sample))
            if len(row) > 1:
                assert row[0] // 100 == 10 * origin.shard + origin.document
            assert origin.id == f"{origin.shard}:{origin.document}"


def test_from_object_storage_indexes_are_fetched_kept_and_counted(corpus, tmp_path, monkeypatch):
    store, manifest = corpus
    sizes = [entry.bin.size + entry.idx.size for entry in manifest.of("train")]
    room = sum(sorted(sizes)[-2:])  # a window of one, and its neighbour
    settings = {"shuffle": "windowed", "window_shards": 1}
    expected = samples_of(take(data_config(store, tmp_path, **settings), 6))
    remote = RemoteStore(store.root)
    monkeypatch.setattr(data_module, "open_store", lambda uri: remote)
    cached = data_config(store, tmp_path / "r", cache={"max_bytes": room}, **settings)
    assert samples_of(take(cached, 6)) == expected
    assert {key for key in remote.fetched if key.endswith(".idx")} == {e.idx.key for e in manifest.of("train")}
    assert bytes_in_cache(tmp_path / "r" / "cache") <= room
    with pytest.raises(ConfigError, match="data.cache.max_bytes"):
        take(data_config(store, tmp_path / "s", cache={"max_bytes": room - 1}, **settings), 1)
    with pytest.raises(ConfigError, match="needs all 5 shards"):
        take(data_config(store, tmp_path / "s", cache={"max_bytes": sum(sizes) - 1}), 1)


def test_an_index_that_is_not_the_manifests_is_refused(corpus, tmp_path):
    store, manifest = corpus
    entry = manifest.of("train")[0]
    data = bytearray(store.read(entry.idx.key))
    data[34] ^= 1
    store.put(entry.idx.key, bytes(data))
    with pytest.raises(ShardError, match="sha256"):
        take(data_config(store, tmp_path), 3)
    entries = tuple(
        e.model_copy(update={"sequences": 2}) if e == manifest.of("train")[1] else e for e in manifest.shards
    )
    store.put(MANIFEST_KEY, to_json(manifest.model_copy(update={"shards": tuple(entries)}).sealed()))
    store.put(entry.idx.key, bytes(data[:34]) + bytes([data[34] ^ 1]) + bytes(data[35:]))
    with pytest.raises(ShardError, match="1 sequences, the manifest says 2"):
        take(data_config(store, tmp_path), 4)
