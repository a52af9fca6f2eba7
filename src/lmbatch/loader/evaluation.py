"""The validation split, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lmbatch.loader.batches import Batch
from lmbatch.loader.order import samples_in
from lmbatch.loader.reader import TokenSource, gather
from lmbatch.loader.stream import TokenStream


class EvaluationBatches:
    """The first ``batches`` batches of ``micro`` sequences of a split, in the manifest's order, each time the same.

    Of them, rank r yields those numbered r, r + world_size, …: whatever the number of processes, together they see
    the same batches. The last one may have fewer rows. ``Batch.samples`` counts the split's sequences. There may be
    none at all (``len()`` is 0), and ranks may differ by one batch.
    """

    def __init__(
        self,
        shard_tokens: Sequence[int],
        reader: TokenSource,
        *,
        sequence_length: int,
        micro: int,
        batches: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        counts = np.asarray(shard_tokens, dtype=np.int64)
        self._stream = TokenStream.of(np.arange(len(counts)), counts)
        self._source = reader
        self._length = sequence_length
        self._micro = micro
        self.samples = min(samples_in(int(counts.sum()), sequence_length), batches * micro)
        self._firsts = range(rank * micro, self.samples, world_size * micro)

    def __len__(self) -> int:
        """Batches of this rank."""
        return len(self._firsts)

    def __iter__(self) -> Iterator[Batch]:
        """The batches, from the beginning. Raises what the reader raises."""
        if self.samples:
            spans = self._stream.spans(0, self.samples * self._length + 1)
            self._source.hold([span.shard for span in spans], [])
        return map(self._batch, self._firsts)

    def _batch(self, first: int) -> Batch:
        samples = range(first, min(first + self._micro, self.samples))
        starts = np.array(samples) * self._length
        tokens = np.empty((len(samples), self._length + 1), np.int64)
        located = self._stream.locate(starts, self._length + 1)
        gather(self._source, located, lambda row: self._stream.spans(int(starts[row]), self._length + 1), tokens)
        return Batch(first, tuple(samples), tokens)
