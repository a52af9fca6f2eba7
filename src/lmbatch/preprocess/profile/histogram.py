"""Histograms of lengths with four bins to every doubling, in whole numbers, so that they add up exactly."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

import numpy as np
import numpy.typing as npt

Histogram = Mapping[int, int]  # lower end of a bin → how many lengths lie in it

_BITS = 3  # leading bits that a bin's lower end keeps: the first is always 1, so 4 bins to a doubling


def lower_end(length: int) -> int:
    """The lower end of the bin that a length lies in; lengths below 8 have a bin each.

    >>> [lower_end(n) for n in (0, 7, 9, 1000)]
    [0, 7, 8, 896]
    """
    shift = max(length.bit_length() - _BITS, 0)
    return length >> shift << shift


def upper_end(lower: int) -> int:
    """Where the bin that begins at ``lower`` ends, itself excluded."""
    return lower + (1 << max(lower.bit_length() - _BITS, 0))


def count_into(histogram: MutableMapping[int, int], length: int) -> None:
    """Count one length."""
    lower = lower_end(length)
    histogram[lower] = histogram.get(lower, 0) + 1


def count_all(histogram: MutableMapping[int, int], lengths: npt.NDArray[np.int64]) -> None:
    """Count many lengths; the bins are those of `lower_end`."""
    bits = np.frexp(lengths)[1]  # exact up to 53 bits: of n > 0 what n.bit_length() is
    shift = np.maximum(bits - _BITS, 0)
    for lower, count in zip(*np.unique(lengths >> shift << shift, return_counts=True), strict=True):
        histogram[int(lower)] = histogram.get(int(lower), 0) + int(count)


def quantile(histogram: Histogram, share: float) -> float | None:
    """About the length that ``share`` of all lengths do not exceed, as if those of a bin lay evenly in it.

    None for an empty histogram. The true value lies in the same bin, so it is off by less than a quarter.
    """
    wanted = share * sum(histogram.values())
    below = 0
    for lower in sorted(histogram):
        count = histogram[lower]
        if count and below + count >= wanted:
            return lower + (upper_end(lower) - 1 - lower) * max(wanted - below, 0.0) / count
        below += count
    return None
