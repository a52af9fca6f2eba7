"""A small finished corpus in a store, a store that is not local, and tokens that need no store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lmbatch.config import DataConfig
from lmbatch.loader import SampleOrder
from lmbatch.loader.locks import locked
from lmbatch.shards import ShardWriter
from lmbatch.store import (
    MANIFEST_KEY,
    Ledger,
    LocalStore,
    Manifest,
    PieceReceipt,
    Receipt,
    ShardEntry,
    Split,
    TokenizerEntry,
    to_json,
)

EOD = 3


def documents_of_lengths(lengths: Sequence[int], first: int = 10) -> list[list[int]]:
    """Documents with these many tokens; all tokens but EOD are different (modulo 60,000)."""
    ids = iter(range(first, 10**9))
    return [[10 + next(ids) % 60_000 for _ in range(length - 1)] + [EOD] for length in lengths]


def put_shard(store: LocalStore, folder: Path, number: int, documents: list[list[int]], split: Split) -> ShardEntry:
    folder.mkdir(parents=True, exist_ok=True)
    writer = ShardWriter(folder, f"{split}-{number}", "uint16")
    for at, ids in enumerate(documents):
        writer.append(ids, piece=at % 2, position=1000 * number + at, id=f"{split}{number}:{at}", text_bytes=len(ids))
    written = writer.close()
    entry = written.entry(split, f"shards/{split}/task-{number:06d}-00-{written.bin_sha256[:12]}")
    for file, path in ((entry.bin, written.bin), (entry.idx, written.idx), (entry.docs, written.docs)):
        store.put_file(file.key, path)
    return entry


def put_receipt(store: LocalStore, number: int, entry: ShardEntry) -> None:
    pieces = tuple(
        PieceReceipt(path=f"raw/{number}-{name}.json", start=0, end=9, first_position=0, end_position=9, records=1)
        for name in ("甲", "乙")
    )
    receipt = Receipt(
        task=f"task-{number:06d}", plan="p", attempt="a", engine="e", pieces=pieces, shards=(entry,), ledger=Ledger(),
        seconds=0, cpu_seconds=0, peak_memory_bytes=0, input_bytes=0,
    )  # fmt: skip
    store.put(f"receipts/task-{number:06d}.json", to_json(receipt))


def make_corpus(
    folder: Path, train: Sequence[Sequence[int]], validation: Sequence[Sequence[int]] = ()
) -> tuple[LocalStore, Manifest]:
    """A finished corpus whose shard i has documents of ``train[i]`` tokens; then the validation shards."""
    store = LocalStore(folder / "store")
    entries = []
    shards = [("train", lengths) for lengths in train] + [("validation", lengths) for lengths in validation]
    for number, (split, lengths) in enumerate(shards):
        documents = documents_of_lengths(lengths, first=number * 1000)
        entries.append(put_shard(store, folder / "spool", number, documents, split))
        put_receipt(store, number, entries[-1])
    tokenizer = TokenizerEntry(fingerprint="t", size=60_010, largest_id=60_009, eod_token="<eod>", eod_id=EOD)
    manifest = Manifest(
        corpus="c", config="f", dtype="uint16", tokenizer=tokenizer, shards=tuple(entries), ledger=Ledger()
    ).sealed()
    store.put(MANIFEST_KEY, to_json(manifest))
    return store, manifest


def data_config(store: LocalStore, folder: Path, **changes) -> DataConfig:
    cache = {"dir": str(folder / "cache")} | changes.pop("cache", {})
    return DataConfig(**{"store": store.uri, "sequence_length": 8, "cache": cache} | changes)


def bytes_in_cache(folder: Path) -> int:
    """What the cache has on disk or has promised, at one moment: nobody can make room while this looks."""
    with locked(folder / "lock"):
        files = [*(folder / "shards").iterdir(), *(folder / "incoming").glob("*/reserved")]
        return sum(file.stat().st_size for file in files)


class Tokens:
    """A TokenSource over arrays; remembers what was held."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.arrays = arrays
        self.held: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def tokens(self, shard: int) -> np.ndarray:
        return self.arrays[shard]

    def hold(self, current: Sequence[int], upcoming: Sequence[int]) -> None:
        self.held.append((tuple(current), tuple(upcoming)))


def numbered(counts: Sequence[int]) -> Tokens:
    """Shards in which every token is different: its number in the split."""
    ends = np.cumsum(counts)
    return Tokens([np.arange(end - count, end, dtype=np.int32) for count, end in zip(counts, ends, strict=True)])


def make_order(counts: Sequence[int], length: int = 8, shuffle: str = "global", window: int = 2, seed: int = 0):
    return SampleOrder(
        counts, digest="sha256:0", seed=seed, sequence_length=length, shuffle=shuffle, window_shards=window
    )
