"""A split in its own fixed order, for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lmbatch.loader.batches import Batch
from lmbatch.loader.order import samples_in, stride_of
from lmbatch.loader.reader import TokenSource, gather
from lmbatch.loader.stream import TokenStream


class Sequences:
    """The sequences of a split in the manifest's order, unshuffled; ``len()`` is their number, which may be 0.

    ``shard_units`` and ``pad_id`` as for SampleOrder.
    """

    def __init__(
        self, shard_units: Sequence[int], reader: TokenSource, sequence_length: int, pad_id: int | None = None
    ) -> None:
        counts = np.asarray(shard_units, dtype=np.int64)
        self._stream = TokenStream.of(np.arange(len(counts)), counts)
        self._stride, self._overlap = stride_of(sequence_length, pad_id)
        self._count = samples_in(int(counts.sum()), self._stride, self._overlap)
        self._source = reader
        self._length, self._pad_id = sequence_length, pad_id

    def __len__(self) -> int:
        return self._count

    def read(self, numbers: range) -> Batch:
        """These sequences as one batch. Raises IndexError, and what the reader raises."""
        if numbers and not 0 <= min(numbers) <= max(numbers) < self._count:
            raise IndexError(f"sequences {numbers} of {self._count}")
        starts = np.array(numbers, dtype=np.int64) * self._stride
        tokens = np.empty((len(numbers), self._length + 1), np.int64)
        size = self._stride + self._overlap
        lengths = gather(
            self._source,
            self._stream.locate(starts, size),
            lambda row: self._stream.spans(int(starts[row]), size),
            tokens,
            self._pad_id,
        )
        return Batch(numbers.start, tuple(numbers), tokens, lengths)

    def hold(self, count: int) -> None:
        """Keeps the shards of the first ``count`` sequences at hand. Raises ConfigError if they are too large."""
        spans = self._stream.spans(0, count * self._stride + self._overlap) if count else ()
        self._source.hold([span.shard for span in spans], [])


class EvaluationBatches:
    """The first ``batches`` batches of ``micro`` sequences each, the same ones every time.

    Of them, rank r yields those numbered r, r + world_size, …: whatever the number of processes, together they see
    the same batches. The last one may have fewer rows. ``Batch.samples`` counts the split's sequences. There may be
    none at all (``len()`` is 0), and ranks may differ by one batch.
    """

    def __init__(
        self, sequences: Sequences, *, micro: int, batches: int, rank: int = 0, world_size: int = 1,
        prepare: Callable[[Batch], Batch] | None = None,
    ) -> None:  # fmt: skip
        """``prepare`` is done to every batch."""
        self._sequences, self._prepare = sequences, prepare
        self._micro = micro
        self.samples = min(len(sequences), batches * micro)
        self._firsts = range(rank * micro, self.samples, world_size * micro)

    def __len__(self) -> int:
        """Batches of this rank."""
        return len(self._firsts)

    def __iter__(self) -> Iterator[Batch]:
        """The batches, from the beginning. Raises what the reader raises."""
        self._sequences.hold(self.samples)
        return map(self._batch, self._firsts)

    def _batch(self, first: int) -> Batch:
        batch = self._sequences.read(range(first, min(first + self._micro, self.samples)))
        return batch if self._prepare is None else self._prepare(batch)
