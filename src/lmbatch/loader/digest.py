"""What identifies the tokens of a step: written into its row of metrics, and compared when somebody asks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from lmbatch.loader.batches import Batch


def sample_digest(sample: int, tokens: np.ndarray) -> int:
    """64 bits that identify the tokens of sample number ``sample`` (BLAKE2b)."""
    number = sample.to_bytes(8, "little")
    return int.from_bytes(
        hashlib.blake2b(tokens.astype("<i8").tobytes(), digest_size=8, salt=number).digest(), "little"
    )


def batches_digest(batches: Sequence[Batch]) -> int:
    """The sum of the samples' digests modulo 2^64: no matter how they are spread over batches and processes.

    Padding is no part of a sample.
    """
    total = 0
    for batch in batches:
        for sample, row in zip(batch.samples, batch.rows(), strict=True):
            total += sample_digest(sample, row)
    return total % 2**64


def digest_text(digest: int) -> str:
    """As it stands in metrics.jsonl."""
    return f"{digest:016x}"
