"""A keyed permutation of 0…n-1 that is computed, never stored.

Construction: a Feistel network over the smallest power of two that holds n, its halves ``bits // 2`` and
``bits - bits // 2`` wide and changing places each round (Luby and Rackoff, "How to construct pseudorandom permutations
from pseudorandom functions", 1988), and cycle walking: a value that lands at n or above is put through again until
it lands below (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002, section 3). Fewer than two passes
are needed on average. The round function is the 64-bit finalizer "Mix13" of D. Stafford, the one in SplitMix64
(Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), of the half plus the round's key.

Every round can be undone, so the network is a bijection whatever the round function; walking along a cycle until
the set 0…n-1 is met again is a bijection of that set. The keys only decide which one. (If n is itself a power of two
from 8 on, it is always an even one; nothing here depends on that.)
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

ROUNDS = 16  # with 8, permutations of 5 to 7 elements were visibly not equally frequent; with 16 they are

UInts = npt.NDArray[np.uint64]


def round_keys(digest: str, seed: int, epoch: int, purpose: str) -> UInts:
    """The ROUNDS keys of one permutation: blake2b of everything that must lead to another one."""
    text = "\0".join(["lmbatch sample order 1", digest, str(seed), str(epoch), purpose])
    halves = (hashlib.blake2b(f"{text}\0{half}".encode(), digest_size=64).digest() for half in range(2))
    return np.frombuffer(b"".join(halves), "<u8", ROUNDS)


class Permutation:
    """A bijection of 0…size-1, chosen by its round keys. Constant memory, and constant time for each value."""

    def __init__(self, size: int, keys: UInts) -> None:
        assert 1 <= size < 2**62
        self.size = size
        bits = (size - 1).bit_length()
        self._left, self._right = bits // 2, bits - bits // 2
        self._keys = keys

    def __call__(self, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Where each of ``values`` (integers from 0 to size-1, any shape) goes: int64 of the same shape."""
        result = np.array(values, dtype=np.uint64, ndmin=1)
        result = self._encrypt(result)
        outside = np.flatnonzero(result >= self.size)
        while len(outside):
            walked = self._encrypt(result.flat[outside])
            result.flat[outside] = walked
            outside = outside[walked >= self.size]
        return result.astype(np.int64).reshape(np.shape(values))

    def _encrypt(self, values: UInts) -> UInts:
        low_bits, high_bits = self._right, self._left
        high, low = values >> np.uint64(low_bits), values & _mask(low_bits)
        for key in self._keys:
            high ^= _mix(low + key) & _mask(high_bits)
            high, low = low, high
            high_bits, low_bits = low_bits, high_bits
        joined: UInts = (high << np.uint64(low_bits)) | low
        return joined


def _mix(values: UInts) -> UInts:
    """Overwrites ``values`` with 64 well-mixed bits of each; uint64 arithmetic wraps around, as it should."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _mask(bits: int) -> np.uint64:
    return np.uint64((1 << bits) - 1)
