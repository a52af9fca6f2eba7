"""The loader's ways of reading the bench's corpus, and a plain read of the same bytes as their limit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from loader_peers import BATCH, SEED, Job, Peer

from lmbatch.config import CacheConfig, ChunkingConfig, DataConfig, ObjectiveConfig
from lmbatch.loader import Apart, ApartBatch, BatchLoader, MaskedBatch, Masking, Purpose, open_train_data
from lmbatch.preprocess.packer import pack
from lmbatch.shards import DocumentBatch, ShardWriter
from lmbatch.store import (
    MANIFEST_KEY,
    Ledger,
    LocalStore,
    Manifest,
    ShardEntry,
    SpecialTokens,
    TokenizerEntry,
    to_json,
)

DOCUMENT = 1000  # tokens, EOD (0) included
SHARD_DOCUMENTS = 4000  # 8 MB
VOCABULARY = 50_000
SPECIAL = SpecialTokens(
    first="", pad="", mask="", first_id=0, last_id=0, pad_id=0, mask_id=1, ids=(0, 1), size=VOCABULARY
)
PREPARED = {
    "lmbatch-apart": Apart(0),
    "lmbatch-masked": Masking(ObjectiveConfig(name="masked"), SPECIAL, seed=SEED, purpose=Purpose.TRAINING),
}


# ── a store with the corpus ──────────────────────────────────────────────────────────────────────────────────────────
def make_store(job: Job, folder: Path, *, packed: bool = False) -> None:
    """A finished corpus of the tokens of ``job``."""
    store = LocalStore(folder)
    tokens = np.memmap(Path(job.data) / "tokens.bin", np.uint16, mode="r").reshape(-1, DOCUMENT)
    starts = range(0, len(tokens), SHARD_DOCUMENTS)
    shards = [
        _shard(
            store, folder, number, np.array(tokens[first : first + SHARD_DOCUMENTS]), job.length + 1 if packed else 0
        )
        for number, first in enumerate(starts)
    ]
    tokenizer = TokenizerEntry(fingerprint="t", size=VOCABULARY, largest_id=VOCABULARY - 1, eod_token="<eod>", eod_id=0)
    manifest = Manifest(
        corpus="bench", config="f", dtype="uint16", tokenizer=tokenizer, shards=tuple(shards), ledger=Ledger(),
        chunking=ChunkingConfig(mode="best_fit", length=job.length + 1) if packed else None,
    ).sealed()  # fmt: skip
    store.put(MANIFEST_KEY, to_json(manifest))


def _shard(store: LocalStore, folder: Path, number: int, rows: Any, length: int) -> ShardEntry:
    count = len(rows)
    columns = [0] * count, list(range(count)), [None] * count
    sizes = np.full(count, DOCUMENT, np.int64)
    writer = ShardWriter(folder, "shard", "uint16", examples=bool(length))
    if length:
        writer.extend_packed(pack([_of_all_lengths(rows.ravel())], length))
    else:
        writer.extend(DocumentBatch(rows.ravel(), sizes, sizes, *columns))
    written = writer.close()
    entry = written.entry("train", f"shards/train/task-{number:06d}-00-{written.bin_sha256[:12]}")
    for file, path in ((entry.bin, written.bin), (entry.idx, written.idx), (entry.docs, written.docs)):
        store.put_file(file.key, path)
        path.unlink()
    return entry


def _of_all_lengths(flat: Any) -> DocumentBatch:
    """The same tokens as documents of 2 to some thousand tokens: equal ones would leave nothing to fit."""
    ends = np.cumsum(np.random.default_rng(SEED).lognormal(5.8, 1.0, len(flat) // 200).astype(np.int64) + 2)
    ends = np.append(ends[ends < len(flat) - 1], len(flat))
    flat = np.where(flat == 0, 2, flat)
    flat[ends - 1] = 0
    count, sizes = len(ends), np.diff(ends, prepend=0)
    return DocumentBatch(flat, sizes, sizes, [0] * count, list(range(count)), [None] * count)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def from_bytes(job: Job, folder: Path) -> Iterator[Any]:
    """The file front to back, widened to int64: what no loader can be quicker than."""
    tokens = np.memmap(Path(job.data) / "tokens.bin", np.uint16, mode="r").view(np.ndarray)
    size = BATCH * job.length
    while True:
        for at in range(0, len(tokens) - size + 1, size):
            yield tokens[at : at + size].astype(np.int64).reshape(BATCH, job.length)


def from_store(job: Job, folder: Path, *, shuffle: str = "global") -> Iterator[Any]:
    """Batches of BatchLoader; where something is done to them, what the model is called with and the labels too."""
    store = job.store or folder.with_name("lmbatch").as_uri()
    cache = CacheConfig(dir=str(folder.with_name("cache")), **({"max_bytes": job.cache} if job.cache else {}))
    config = DataConfig(
        store=store if folder.name != "lmbatch-best-fit" else folder.as_uri(), sequence_length=job.length,
        shuffle=shuffle, window_shards=4, cache=cache,
    )  # fmt: skip
    with open_train_data(config, seed=SEED) as data:
        loader = BatchLoader(
            data.order, data.reader, batch_size=BATCH, micro=BATCH, start_sample=job.skipped,
            prepare=PREPARED.get(folder.name),
        )  # fmt: skip
        with loader:
            for step in loader:
                (batch,) = step.batches
                if isinstance(batch, (ApartBatch, MaskedBatch)):
                    batch.inputs(), batch.labels()
                yield batch.tokens[:, 1:]


def no_make(job: Job, folder: Path) -> None:
    """Reads what another has made."""


windowed = partial(from_store, shuffle="windowed")
OURS = {
    "bytes": Peer(no_make, from_bytes),
    "lmbatch": Peer(make_store, from_store),
    "lmbatch-windowed": Peer(no_make, windowed),
    "lmbatch-apart": Peer(no_make, from_store),
    "lmbatch-best-fit": Peer(partial(make_store, packed=True), from_store),
    "lmbatch-masked": Peer(no_make, from_store),
    "lmbatch-s3": Peer(no_make, windowed),
}
