"""Documents that are tokenized together, from their texts to the columns that a shard is given. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from lmbatch.corpus import Document
from lmbatch.preprocess.chunking import Counts, Examples
from lmbatch.shards import DocumentBatch
from lmbatch.store import Split


@dataclass(slots=True)
class Pending:
    """A document on its way to the tokenizer."""

    document: Document
    piece: int
    split: Split
    before: str | None  # its text before cleaning, if it may be shown


def rows_of(batch: Sequence[Pending], examples: Examples) -> DocumentBatch:
    """What the shards are given of the documents; ``examples`` are those of their texts."""
    documents = [pending.document for pending in batch]
    # Asked after encoding: an engine in Rust has left the UTF-8 with the string.
    sizes = np.fromiter((len(document.text.encode()) for document in documents), np.int64, len(documents))
    return DocumentBatch(
        flat=examples.flat,
        tokens=examples.tokens,
        text_bytes=sizes * examples.kept // np.maximum(examples.encoded, 1),
        pieces=[pending.piece for pending in batch],
        positions=[document.position for document in documents],
        ids=[document.id for document in documents],
        lengths=examples.lengths,
        sequences=examples.sequences,
    )


def runs(keys: Sequence[Hashable]) -> Iterator[tuple[int, int]]:
    """Where equal neighbours begin and end.

    >>> list(runs("aab"))
    [(0, 2), (2, 3)]
    """
    first = 0
    for _, group in groupby(keys):
        end = first + sum(1 for _ in group)
        yield first, end
        first = end


def that_fit(tokens: Counts, room: int, itemsize: int) -> int:
    """How many documents go into a shard that is full when ``room`` bytes more are reached: one at least.

    >>> [that_fit(np.array([3, 3, 3]), room, 2) for room in (0, 6, 7, 12, 13)]
    [1, 1, 2, 2, 3]
    """
    return 1 + int(np.searchsorted(np.cumsum(tokens[:-1]) * itemsize, room, side="left"))
