"""How fast the loader reads, against a plain sequential read of the same bytes in the same run.

    python tests/bench/bench_loader.py [--mebibytes 512] [--steps 400] [--folder DIR]

Prints tokens per second of BatchLoader (uint16 shards, L = 1024) and the time to the first batch at three places of
the corpus. Only the ratios mean something: they are taken on one machine in one run, with the bytes in its page cache.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lmbatch.config import CacheConfig, DataConfig
from lmbatch.loader import BatchLoader, TokenData, open_train_data
from lmbatch.shards import ShardWriter, map_tokens
from lmbatch.store import MANIFEST_KEY, Ledger, LocalStore, Manifest, ShardEntry, TokenizerEntry, to_json

LENGTH = 1024
SHARD_TOKENS = 16 * 2**20  # 32 MiB: enough shards for windows in a small corpus
DOCUMENT = 1000


def make_corpus(folder: Path, mebibytes: int) -> LocalStore:
    """A finished corpus of random tokens."""
    store = LocalStore(folder / "store")
    shards = tuple(make_shard(store, folder, number) for number in range(max(1, mebibytes * 2**19 // SHARD_TOKENS)))
    tokenizer = TokenizerEntry(fingerprint="t", size=50_000, largest_id=49_999, eod_token="<eod>", eod_id=0)
    manifest = Manifest(
        corpus="bench", config="f", dtype="uint16", tokenizer=tokenizer, shards=shards, ledger=Ledger()
    ).sealed()
    store.put(MANIFEST_KEY, to_json(manifest))
    return store


def make_shard(store: LocalStore, folder: Path, number: int) -> ShardEntry:
    """One shard of random documents."""
    rng = np.random.default_rng(number)
    writer = ShardWriter(folder, "shard", "uint16")
    for position in range(SHARD_TOKENS // DOCUMENT):
        ids = rng.integers(1, 50_000, DOCUMENT, dtype=np.uint16)
        ids[-1] = 0
        writer.append(ids, piece=0, position=position, id=None, text_bytes=DOCUMENT)
    written = writer.close()
    entry = written.entry("train", f"shards/train/task-{number:06d}-00-{written.bin_sha256[:12]}")
    for file, path in ((entry.bin, written.bin), (entry.idx, written.idx), (entry.docs, written.docs)):
        store.put_file(file.key, path)
    return entry


def open_data(store: LocalStore, folder: Path, shuffle: str) -> TokenData:
    """The corpus, with every shard checked beforehand: the check happens once, and is not what is measured."""
    config = DataConfig(
        store=store.uri, sequence_length=LENGTH, shuffle=shuffle, cache=CacheConfig(dir=str(folder / "cache"))
    )
    data = open_train_data(config, seed=1)
    for shard in range(len(data.entries)):
        data.reader.tokens(shard)
    return data


def plain_rate(store: LocalStore, data: TokenData, *, as_int64: bool) -> float:
    """Tokens per second of copying the mapped shards front to back, in pieces of the loader's step."""
    tokens = 0
    start = time.perf_counter()
    for entry in data.entries:
        mapped = map_tokens(store.local_path(entry.bin.key), "uint16", entry.tokens)
        for at in range(0, len(mapped), 64 * LENGTH):
            piece = mapped[at : at + 64 * LENGTH]
            tokens += len(piece.astype(np.int64) if as_int64 else piece.copy())
    return tokens / (time.perf_counter() - start)


def loader_rate(data: TokenData, batch: int, steps: int) -> float:
    """Tokens per second that a consumer which does nothing else gets."""
    with BatchLoader(data.order, data.reader, batch_size=batch, micro=min(batch, 16)) as loader:
        next(loader)
        start = time.perf_counter()
        for _ in range(steps):
            next(loader)
        return steps * batch * LENGTH / (time.perf_counter() - start)


def first_batch_seconds(store: LocalStore, folder: Path, shuffle: str, share: float) -> float:
    """From opening the manifest to holding the first batch."""
    config = DataConfig(
        store=store.uri, sequence_length=LENGTH, shuffle=shuffle, cache=CacheConfig(dir=str(folder / "cache"))
    )
    start = time.perf_counter()
    with open_train_data(config, seed=1) as data:
        sample = int(share * data.order.samples_per_epoch)
        with BatchLoader(data.order, data.reader, batch_size=64, micro=16, start_sample=sample) as loader:
            next(loader)
            return time.perf_counter() - start


def table(store: LocalStore, folder: Path, steps: int) -> Iterator[str]:
    """The lines of the report."""
    with open_data(store, folder, "global") as data:
        plain_rate(store, data, as_int64=False)  # brings the bytes into the page cache
        base = plain_rate(store, data, as_int64=False)
        yield f"{'reading':<44}{'M tokens/s':>12}{'ratio':>8}"
        rates = {"plain sequential copy (uint16)": base}
        rates["plain sequential copy to int64"] = plain_rate(store, data, as_int64=True)
        for batch in (8, 64, 512):
            rates[f"BatchLoader global, batch {batch}"] = loader_rate(data, batch, max(20, steps * 64 // batch))
    with open_data(store, folder, "windowed") as data:
        rates["BatchLoader windowed, batch 64"] = loader_rate(data, 64, steps)
    for name, rate in rates.items():
        yield f"{name:<44}{rate / 1e6:>12,.0f}{rate / base:>8.2f}"
    yield ""
    yield f"{'first batch at':<44}{'ms':>12}{'ratio':>8}"
    for shuffle in ("global", "windowed"):
        seconds = {
            share: min(first_batch_seconds(store, folder, shuffle, share) for _ in range(5))
            for share in (0.0, 0.5, 0.99)
        }
        for share, value in seconds.items():
            yield f"{f'{shuffle}, {share:.0%} of the epoch':<44}{value * 1e3:>12.1f}{value / seconds[0.0]:>8.2f}"


def main() -> None:
    """Makes a corpus in a temporary folder and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=512)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--folder", help="where the temporary corpus goes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        store = make_corpus(Path(name), options.mebibytes)
        for line in table(store, Path(name), options.steps):
            print(line)


if __name__ == "__main__":
    main()
