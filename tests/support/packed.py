"""Documents on their way into packed examples."""

from __future__ import annotations

import numpy as np

from lmbatch.shards import DocumentBatch

EOD = 0


def batch_of(lengths: list[int]) -> DocumentBatch:
    """Documents of so many tokens, the last of each EOD: no two others are alike. Their positions are their numbers."""
    counts = np.array(lengths, np.int64)
    flat = np.arange(counts.sum(), dtype=np.uint32) + 1000
    flat[np.cumsum(counts) - 1] = EOD
    numbers = list(range(len(lengths)))
    return DocumentBatch(flat, counts, counts * 3, [0] * len(lengths), numbers, [f"d{n}" for n in numbers])
