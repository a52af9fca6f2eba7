"""The binary records that the stages of de-duplication meet through: packed, little-endian, no padding.

==========  ==========================================================================================
PLACE 12 B  ``piece`` u4 (number within the task), ``position`` u8 (of the record in its file)
EXACT 20 B  ``high`` u8, ``low`` u8 (the content hash as two little-endian halves), ``row`` u4
BAND 16 B   ``key`` u8 (of one band of the signature), ``content`` u4 (of the content hash), ``row`` u4
DROP 16 B   ``row`` u4, ``kept_task`` u4, ``kept_row`` u4, ``reason`` u4 (an index into REASONS)
==========  ==========================================================================================
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

PLACE = np.dtype([("piece", "<u4"), ("position", "<u8")])
EXACT = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u4")])
BAND = np.dtype([("key", "<u8"), ("content", "<u4"), ("row", "<u4")])
DROP = np.dtype([("row", "<u4"), ("kept_task", "<u4"), ("kept_row", "<u4"), ("reason", "<u4")])

# In the order in which they take precedence: a copy is a copy, and no near-duplicate besides.
REASONS = ("duplicate", "near_duplicate")

Records = npt.NDArray[Any]


def partition_of(keys: npt.NDArray[np.uint64], partitions: int) -> npt.NDArray[np.uint32]:
    """Which partition each key belongs to, by its upper 32 bits: ranges of keys of nearly one size."""
    return (((keys >> np.uint64(32)) * np.uint64(partitions)) >> np.uint64(32)).astype(np.uint32)


def share_of(keys: npt.NDArray[np.uint64], shares: int) -> npt.NDArray[np.uint32]:
    """The same by the lower 32 bits: cuts one partition further, where it is more than memory should hold."""
    return (((keys & np.uint64(0xFFFF_FFFF)) * np.uint64(shares)) >> np.uint64(32)).astype(np.uint32)


def row_order(task: npt.ArrayLike, row: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """Task and row as one number that sorts in the order of the plan."""
    return (np.asarray(task, dtype=np.uint64) << np.uint64(32)) | np.asarray(row, dtype=np.uint64)
