"""Documents of one split on their way into packed examples: gathered, packed together, handed on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lmbatch.config import ChunkingConfig
from lmbatch.preprocess.batches import that_fit
from lmbatch.preprocess.packing import best_fit, cut
from lmbatch.shards import DocumentBatch, PackedBatch


class Packer:
    """Holds documents until they have ``config.buffer`` tokens; what it gives depends on the documents alone, not on
    how they come in."""

    def __init__(self, config: ChunkingConfig) -> None:
        self._config = config
        self._waiting: list[DocumentBatch] = []
        self.tokens = 0  # of the documents that wait
        self.padding = 0  # tokens by which all examples so far fall short of their length

    def add(self, documents: DocumentBatch) -> Iterator[PackedBatch]:
        """Examples of the documents before, as often as there are enough of them."""
        while len(documents):
            taken = that_fit(documents.tokens, self._config.buffer - self.tokens, itemsize=1)
            self._waiting.append(documents.part(0, taken))
            self.tokens += int(documents.tokens[:taken].sum())
            documents = documents.part(taken, len(documents))
            if self.tokens >= self._config.buffer:
                yield from self.finish()

    def finish(self) -> Iterator[PackedBatch]:
        """Examples of what is left."""
        if self._waiting:
            packed = pack(self._waiting, self._config.most)
            self.padding += len(packed) * self._config.most - self.tokens
            self._waiting, self.tokens = [], 0
            yield packed


def pack(batches: list[DocumentBatch], capacity: int) -> PackedBatch:
    """All documents in examples of at most ``capacity`` tokens: each once, none cut that is not longer."""
    tokens = np.concatenate([batch.tokens for batch in batches])
    flat = np.concatenate([batch.flat for batch in batches])
    pieces, positions, ids = (
        [value for batch in batches for value in getattr(batch, name)] for name in ("pieces", "positions", "ids")
    )
    parts = cut(tokens, capacity)
    packing = best_fit(parts.sizes, capacity)
    sizes, owners = parts.sizes[packing.order], parts.documents[packing.order].tolist()
    ends = np.cumsum(parts.sizes)[packing.order]
    runs = zip((ends - sizes).tolist(), ends.tolist(), strict=True)
    return PackedBatch(
        flat=np.concatenate([flat[start:end] for start, end in runs]),
        lengths=np.add.reduceat(sizes, np.cumsum(packing.counts) - packing.counts),
        tokens=sizes,
        documents=len(tokens),
        text_bytes=sum(int(batch.text_bytes.sum()) for batch in batches),
        pieces=[pieces[owner] for owner in owners],
        positions=[positions[owner] for owner in owners],
        ids=[ids[owner] for owner in owners],
    )
