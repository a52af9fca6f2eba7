"""Cutting a file into pieces of nearly equal size. Pure: neither a store nor a clock is looked at."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate, pairwise

from lmbatch.config import CorpusConfig
from lmbatch.config.base import Section
from lmbatch.corpus.inputs import InputFile


class FileProbe(Section):
    """How a file is to be cut and read, found by ``probing.probe``; stored with the plan.

    ``content_start`` is the position behind a byte order mark or an array's ``[``. ``first_key`` is the raw first key
    of the records of a JSON array, or None where every element must be looked at; ``wrapped`` tells that the array is
    the value of a field. The row groups are Parquet's: uncompressed bytes and rows of each.
    """

    size: int
    splittable: bool
    why_not: str = ""
    empty: bool = False
    content_start: int = 0
    first_key: str | None = None
    wrapped: bool = False
    row_group_bytes: tuple[int, ...] = ()
    row_group_rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of one file, ``start`` included and ``end`` not.

    Counted in bytes; in row groups for Parquet. A file that cannot be cut is one piece from 0 to its size.
    """

    path: str
    start: int
    end: int


def split_file(file: InputFile, probe: FileProbe, config: CorpusConfig, target_bytes: int) -> list[Piece]:
    """Pieces that tile the file exactly, as equal as possible and of ``target_bytes`` at most where that can be."""
    if config.format == "parquet" and not probe.empty:
        cuts = _group_cuts(probe.row_group_bytes, target_bytes if probe.splittable else sum(probe.row_group_bytes))
    else:
        count = -(-file.size // target_bytes) if probe.splittable else 1
        cuts = _even_cuts(file.size, max(1, count))
    return [Piece(file.path, start, end) for start, end in pairwise(cuts)]


def piece_bytes(piece: Piece, probe: FileProbe) -> int:
    """How many bytes of its file a piece stands for; what tasks are balanced by."""
    if probe.row_group_bytes:
        return sum(probe.row_group_bytes[piece.start : piece.end])
    return piece.end - piece.start


def _even_cuts(size: int, count: int) -> list[int]:
    return [size * number // count for number in range(count + 1)]


def _group_cuts(sizes: tuple[int, ...], target_bytes: int) -> list[int]:
    """Cuts between row groups, each as near as it can be to its even place."""
    ends = list(accumulate(sizes, initial=0))
    count = max(1, min(len(sizes), -(-ends[-1] // max(1, target_bytes))))
    inner = {_nearest(ends, ends[-1] * number / count) for number in range(1, count)}
    return sorted({0, *inner, len(sizes)}) if sizes else [0, 0]


def _nearest(ends: list[int], place: float) -> int:
    after = bisect_left(ends, place)
    return after if after == 0 or ends[after] - place <= place - ends[after - 1] else after - 1
