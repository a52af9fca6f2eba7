"""What a document is compared by: the hash of its content and the bands of its MinHash signature."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lmbatch.config import DedupConfig, NearConfig
from lmbatch.corpus.duplicates.normal import content_hash, normal_form
from lmbatch.corpus.duplicates.shingles import Hashes, shingles
from lmbatch.errors import missing_package

_STEP = np.uint64(0x9E37_79B9_7F4A_7C15)
_MIX = np.uint64(0x9FB2_1C65_1E98_DF25)
_HALF = np.uint64(32)


@dataclass(frozen=True, slots=True)
class Signs:
    """``high`` and ``low`` are the halves of the content hash; ``bands`` is (bands,) uint64, empty without `near`."""

    high: int
    low: int
    bands: npt.NDArray[np.uint64]


class Signer:
    """Signs texts, one at a time, in memory that a long text does not raise beyond its own code points.

    R-MinHash of `rensa` (Fast Similarity Sketching, Dahlgaard, Knudsen & Thorup 2017): the signature of a set is the
    minimum, slot by slot, of those of its parts. So a long text is signed in pieces, to the same signature.
    """

    def __init__(self, config: DedupConfig) -> None:
        """Raises UsageError if `near` is wanted and rensa is not installed."""
        self._near = config.near
        self._sketch = None if self._near is None else _rensa().RMinHash.digest_matrix_from_flat_token_hashes

    def sign(self, text: str) -> Signs:
        """The signs of a text. Equal normal forms have equal signs."""
        normal = normal_form(text)
        digest = content_hash(normal)
        if self._near is None:
            bands = np.empty(0, dtype=np.uint64)
        else:
            bands = band_keys(self._signature(shingles(normal, self._near.ngram), self._near), self._near.bands)
        return Signs(int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"), bands)

    def _signature(self, pieces: Any, near: NearConfig) -> npt.NDArray[np.uint32]:
        slots = near.bands * near.rows
        parts = [self._sketched(piece, slots, near.seed) for piece in pieces]
        return parts[0] if len(parts) == 1 else np.minimum.reduce(parts)

    def _sketched(self, hashes: Hashes, slots: int, seed: int) -> npt.NDArray[np.uint32]:
        assert self._sketch is not None
        matrix = self._sketch(hashes, (0, len(hashes)), num_perm=slots, seed=seed)
        return np.array(matrix.to_rows()[0], dtype=np.uint32)


def band_keys(signature: npt.NDArray[np.uint32], bands: int) -> npt.NDArray[np.uint64]:
    """(bands * rows,) uint32 → (bands,) uint64: equal for two signatures where all rows of a band are equal.

    A multilinear hash (Carter & Wegman 1979) with other coefficients for each band, so that one band's keys do not
    meet another's; then mixed, since partitions are cut by the upper bits.
    """
    keys: npt.NDArray[np.uint64] = (
        (signature.astype(np.uint64) * _coefficients(len(signature))).reshape(bands, -1).sum(axis=1)
    )
    keys += np.arange(1, bands + 1, dtype=np.uint64) * _STEP
    keys ^= keys >> _HALF
    keys *= _MIX
    keys ^= keys >> _HALF
    return keys


@lru_cache(maxsize=4)
def _coefficients(count: int) -> npt.NDArray[np.uint64]:
    """Odd numbers that look random and are the same everywhere."""
    digests = (hashlib.blake2b(b"band %d" % place, digest_size=8).digest() for place in range(count))
    return np.frombuffer(b"".join(digests), dtype="<u8") | np.uint64(1)


def dedup_libraries(config: DedupConfig | None) -> dict[str, str]:
    """What the signs depend on besides the config: library → version of its tables or its algorithm."""
    if config is None:
        return {}
    found = {"Unicode": unicodedata.unidata_version}
    if config.near is not None:
        found["rensa's algorithm"] = str(_rensa().RMinHash.ALGORITHM_VERSION)
    return found


def _rensa() -> Any:
    try:
        import rensa
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    return rensa
