"""Open the data that a config names: manifest, order, reader."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from lmbatch.config import CacheConfig, DataConfig
from lmbatch.errors import ConfigError, ObjectNotFoundError
from lmbatch.loader.batches import Batch
from lmbatch.loader.cache import ShardCache, total_bytes
from lmbatch.loader.evaluation import EvaluationBatches, Sequences
from lmbatch.loader.order import SampleOrder, units_of
from lmbatch.loader.reader import TokenReader, files_of
from lmbatch.loader.stream import Span
from lmbatch.store import MANIFEST_KEY, Manifest, ShardEntry, Split, Store, open_store, parse_manifest

log = logging.getLogger(__name__)


class TokenData:
    """One split of a preprocessed corpus, ready to be read. Close it, or use it as a context manager."""

    def __init__(self, store: Store, manifest: Manifest, split: Split, config: DataConfig, seed: int) -> None:
        """Raises ConfigError if the split is smaller than one sample."""
        self.store = store
        self.manifest = manifest
        self.split = split
        self.entries = manifest.of(split)
        self.order = SampleOrder.from_manifest(
            manifest,
            split,
            seed=seed,
            sequence_length=config.sequence_length,
            shuffle=config.shuffle,
            window_shards=config.window_shards,
        )
        cache = ShardCache(store, cache_folder(config.cache), config.cache.max_bytes)
        self.reader = TokenReader(cache, self.entries, manifest.dtype, indexed=manifest.chunking is not None)
        units = units_of(manifest, split)
        self._sequences = Sequences(units, self.reader, config.sequence_length, self.order.pad_id)

    def read(self, number: int) -> npt.NDArray[np.int64]:
        """Sequence ``number`` of the split in the manifest's order, unshuffled: int64, (sequence_length + 1,)."""
        tokens: npt.NDArray[np.int64] = self._sequences.read(range(number, number + 1)).tokens[0]
        return tokens

    def spans(self, sample: int) -> tuple[Span, ...]:
        """The tokens of a global sample number, as pieces of shards, without padding."""
        spans = self.order.locate(sample)
        if self.order.pad_id is None:
            return spans
        return tuple(Span(span.shard, *self.reader.index(span.shard).place(span.start)) for span in spans)

    def evaluation(
        self, *, micro: int, batches: int, rank: int = 0, world_size: int = 1,
        prepare: Callable[[Batch], Batch] | None = None,
    ) -> EvaluationBatches:  # fmt: skip
        """The first ``batches`` batches of the split, unshuffled; ``prepare`` is done to each."""
        return EvaluationBatches(
            self._sequences, micro=micro, batches=batches, rank=rank, world_size=world_size, prepare=prepare
        )

    def close(self) -> None:
        """Unmaps the shards and lets go of the cache."""
        self.reader.close()

    def __enter__(self) -> TokenData:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_train_data(config: DataConfig, *, seed: int, split: Split = "train") -> TokenData:
    """The data of a config. Reads the manifest and no shard.

    Raises ConfigError for a manifest that is missing or is not the pinned one, for a split smaller than one sample,
    and for a cache too small for the way of shuffling; StoreError for what the store refuses.
    """
    store = open_store(config.store)
    manifest = read_manifest(store, config.digest)
    if split == "train" and store.local_path(MANIFEST_KEY) is None:
        check_room(manifest.of(split), config, indexed=manifest.chunking is not None)
    return TokenData(store, manifest, split, config, seed)


def read_manifest(store: Store, digest: str | None) -> Manifest:
    """The manifest of a store. Raises ConfigError if there is none, or if it is not the one of ``digest``."""
    where = store.where(MANIFEST_KEY)
    try:
        data = store.read(MANIFEST_KEY)
    except ObjectNotFoundError:
        raise ConfigError(
            f"{where}: there is no manifest, so this is no finished corpus",
            remedy="finish `lmbatch preprocess` for it, or correct data.store",
        ) from None
    manifest = parse_manifest(data, where)
    if digest is not None and manifest.digest != digest:
        raise ConfigError(
            f"{where}: the digest is {manifest.digest}, but data.digest pins {digest}",
            remedy="correct data.store, or take over the new digest if this other data is meant",
        )
    return manifest


def check_room(entries: tuple[ShardEntry, ...], config: DataConfig, *, indexed: bool = False) -> None:
    """Raises ConfigError if the shards that must be on local disk at once, ``indexed`` or not, cannot be."""
    files, most = files_of(entries, indexed=indexed), config.cache.max_bytes
    if config.shuffle == "global":
        if total_bytes(files) > most:
            raise ConfigError(
                f"data.shuffle=global needs all {len(entries)} shards, {total_bytes(files)} bytes, on local disk, but "
                f"data.cache.max_bytes is {most}",
                remedy="set data.shuffle=windowed, or raise data.cache.max_bytes",
            )
        return
    # The last sample of a window may reach into the shard behind it, and any shards can become neighbours.
    sizes = [total_bytes(files_of([entry], indexed=indexed)) for entry in entries]
    largest = sorted(sizes, reverse=True)[: config.window_shards + 1]
    if sum(largest) > most:
        raise ConfigError(
            f"a window of data.window_shards={config.window_shards} can take {sum(largest)} bytes, but "
            f"data.cache.max_bytes is {most}",
            remedy="lower data.window_shards, or raise data.cache.max_bytes to twice as much",
        )
    if 2 * sum(largest) > most:
        log.warning("data.cache.max_bytes holds less than two windows: the next one cannot be prefetched as a whole")


def cache_folder(config: CacheConfig) -> Path:
    """Where shards are cached: the config's folder, else lmbatch/ in the user's cache folder (XDG)."""
    if config.dir is not None:
        return Path(config.dir).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lmbatch"
