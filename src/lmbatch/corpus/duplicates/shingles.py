"""Character n-grams as 64-bit hashes, in pieces that keep memory and the processor's cache small."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lmbatch.corpus.duplicates.normal import CodePoints

Hashes = npt.NDArray[np.uint64]

_AT_ONCE = 1 << 15  # n-grams: 256 KiB for each of two arrays
# Odd, so that multiplying modulo 2^64 loses nothing. They are those of splitmix64 (Steele, Lea & Flood 2014).
_BASE = np.uint64(0x9E37_79B9_7F4A_7C15)
_MIX_1 = np.uint64(0xBF58_476D_1CE4_E5B9)
_MIX_2 = np.uint64(0x94D0_49BB_1331_11EB)


def shingles(normal: CodePoints, ngram: int) -> Iterator[Hashes]:
    """Hashes of all n-grams of a normal form, in order and with repetitions, at most 32,768 at a time.

    A text of fewer than ``ngram`` characters is one n-gram, filled up with zeros. The hash is a polynomial in the
    code points modulo 2^64, mixed by splitmix64's finalizer: integers only, so the same everywhere.
    """
    if len(normal) < ngram:
        normal = np.concatenate([normal, np.zeros(ngram - len(normal), dtype=np.uint32)])
    count = len(normal) - ngram + 1
    for start in range(0, count, _AT_ONCE):
        yield _hashes(normal[start : min(start + _AT_ONCE, count) + ngram - 1], ngram)


def _hashes(points: CodePoints, ngram: int) -> Hashes:
    count = len(points) - ngram + 1
    values = points[:count].astype(np.uint64)
    for place in range(1, ngram):
        values *= _BASE
        values += points[place : place + count]
    values ^= values >> np.uint64(30)
    values *= _MIX_1
    values ^= values >> np.uint64(27)
    values *= _MIX_2
    values ^= values >> np.uint64(31)
    return values
