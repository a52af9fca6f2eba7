"""From samples to tokens: map the shards that are needed, copy the tokens out."""

from __future__ import annotations

import resource
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lmbatch.errors import ShardError
from lmbatch.loader.cache import ShardCache
from lmbatch.loader.order import SampleOrder
from lmbatch.loader.prefetch import Prefetcher
from lmbatch.loader.stream import Ints, Located, Span
from lmbatch.shards import ShardIndex, TokenArray, map_index, map_tokens
from lmbatch.store import FileEntry, ShardEntry

_MOST_OPEN = 16_384


class TokenSource(Protocol):
    """What gives the tokens of shards by number: TokenReader, or anything else in tests."""

    def tokens(self, shard: int) -> TokenArray:
        """All tokens of a shard, 1-D, in the shard's own dtype."""

    def index(self, shard: int) -> ShardIndex:
        """Where each example of a shard lies; asked for only where samples are examples."""

    def hold(self, current: Sequence[int], upcoming: Sequence[int]) -> None:
        """The shards of the current window stay at hand; those of the next one may be fetched in the background."""


class TokenReader:
    """The shards of one split, mapped into memory through a cache when they are first looked at.

    ``indexed``: their indexes are needed as well; ``documents``: the caller also reads the origins of documents.
    """

    def __init__(
        self,
        cache: ShardCache,
        entries: Sequence[ShardEntry],
        dtype: str,
        *,
        indexed: bool = False,
        documents: bool = False,
    ) -> None:
        self._cache = cache
        self._entries = entries
        self._dtype = dtype
        self._parts = {"indexed": indexed, "documents": documents}
        self._open: OrderedDict[int, TokenArray] = OrderedDict()
        self._indexes: dict[int, ShardIndex] = {}
        self._most_open = _most_open() // (2 if indexed else 1)
        self._prefetcher: Prefetcher[FileEntry] = Prefetcher(cache.path)

    def tokens(self, shard: int) -> TokenArray:
        """All tokens of a shard, 1-D, read-only, in the shard's own dtype. Raises what ShardCache.path() raises."""
        tokens = self._open.get(shard)
        if tokens is None:
            entry = self._entries[shard]
            # A plain array of the map: slicing a memmap object costs more than copying a sequence.
            tokens = map_tokens(self._cache.path(entry.bin), self._dtype, entry.tokens).view(np.ndarray)
            self._open[shard] = tokens
            if len(self._open) > self._most_open:
                self._indexes.pop(self._open.popitem(last=False)[0], None)
        return tokens

    def index(self, shard: int) -> ShardIndex:
        """Where each sequence of a shard lies, mapped. Raises what ShardCache.path() raises, and ShardError."""
        index = self._indexes.get(shard)
        if index is None:
            entry = self._entries[shard]
            path = self._cache.path(entry.idx)
            index = self._indexes[shard] = map_index(path)
            expected = entry.documents if entry.sequences is None else entry.sequences
            if index.sequences != expected:
                raise ShardError(
                    f"{path}: {index.sequences} sequences, the manifest says {expected}",
                    remedy="run `lmbatch verify` on the store",
                )
        return index

    def hold(self, current: Sequence[int], upcoming: Sequence[int]) -> None:
        """Keeps the current window in the cache and fetches it and the next one, as far as it fits, in order.

        Raises ConfigError if the current window is larger than the cache.
        """
        keep = set(current) | set(upcoming)
        for shard in [shard for shard in list(self._open) if shard not in keep]:
            self._open.pop(shard, None)
            self._indexes.pop(shard, None)
        needed = self._files(current)
        later = self._cache.hold(needed, self._files(upcoming))
        self._prefetcher.want([*needed, *later])

    def close(self) -> None:
        """Unmaps the shards and lets go of the cache."""
        self._prefetcher.close()
        self._open.clear()
        self._indexes.clear()
        self._cache.close()

    def _files(self, shards: Sequence[int]) -> list[FileEntry]:
        return files_of([self._entries[shard] for shard in shards], **self._parts)


def files_of(entries: Iterable[ShardEntry], *, indexed: bool, documents: bool = False) -> list[FileEntry]:
    """The files that are read of shards: the payload; the index, if samples are examples; the documents' origins."""
    files = []
    for entry in entries:
        files += [entry.idx] * indexed + [entry.docs] * documents + [entry.bin]
    return files


def gather(
    source: TokenSource,
    located: Located,
    spans: Callable[[int], tuple[Span, ...]],
    out: Ints,
    pad_id: int | None = None,
) -> Ints | None:
    """Copies sample i of ``located`` into ``out[i]``; ``spans(i)`` is asked for those that lie in several shards.

    With ``pad_id`` samples are examples, padded with it; then their own lengths are returned.
    """
    if pad_id is not None:
        return _gather_examples(source, located, out, pad_id)
    length = out.shape[1]
    places = zip(located.shard.tolist(), located.start.tolist(), located.whole.tolist(), strict=True)
    for row, (shard, start, whole) in enumerate(places):
        if whole:
            out[row] = source.tokens(shard)[start : start + length]
        else:
            out[row] = np.concatenate([_piece(source, span) for span in spans(row)])
    return None


def _gather_examples(source: TokenSource, located: Located, out: Ints, pad_id: int) -> Ints:
    lengths = np.empty(len(out), np.int64)
    out[:] = pad_id
    for row, (shard, number) in enumerate(zip(located.shard.tolist(), located.start.tolist(), strict=True)):
        start, length = source.index(shard).place(number)
        out[row, :length] = source.tokens(shard)[start : start + length]
        lengths[row] = length
    return lengths


def read_samples(order: SampleOrder, source: TokenSource, samples: Ints) -> npt.NDArray[np.int64]:
    """The tokens of ``samples`` (ascending global numbers): int64, (len(samples), sequence_length + 1)."""
    out = np.empty((len(samples), order.sequence_length + 1), np.int64)
    gather(source, order.locate_many(samples), lambda row: order.locate(int(samples[row])), out, order.pad_id)
    return out


def read_sample(order: SampleOrder, source: TokenSource, sample: int) -> npt.NDArray[np.int64]:
    """The tokens of one global sample number: int64, (sequence_length + 1,)."""
    tokens: npt.NDArray[np.int64] = read_samples(order, source, np.array([sample]))[0]
    return tokens


def _most_open() -> int:
    """Maps at once: each keeps a file descriptor, and half of them are left to the rest of the process."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST_OPEN if limit == resource.RLIM_INFINITY else max(1, min(_MOST_OPEN, limit // 2))


def _piece(source: TokenSource, span: Span) -> TokenArray:
    return source.tokens(span.shard)[span.start : span.start + span.length]
