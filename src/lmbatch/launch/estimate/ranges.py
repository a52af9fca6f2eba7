"""Which ranges of the input are probed: evenly spread over its bytes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from lmbatch.preprocess import Plan, PlannedPiece


@dataclass(frozen=True)
class ProbeRange:
    """Neighbouring pieces. With a ``limit`` it is one piece that cannot be cut, read for about so many bytes."""

    pieces: tuple[PlannedPiece, ...]
    limit: int | None = None

    @property
    def bytes(self) -> int:
        """What it stands for; with a limit no more than an intention."""
        whole = sum(piece.bytes for piece in self.pieces)
        return whole if self.limit is None else min(whole, self.limit)


def choose_ranges(plan: Plan, count: int, size: int) -> list[ProbeRange]:
    """At most ``count`` ranges of about ``size`` bytes, in an order whose every beginning is spread as well.

    Where the input is smaller than all of them together they cover it exactly, each byte once.
    """
    pieces = [piece for task in plan.tasks for piece in task.pieces if piece.bytes]
    total = sum(piece.bytes for piece in pieces)
    count = max(1, min(count, -(-total // size)))
    step, length, whole = total / count, min(size, total), total <= count * size
    ranges: list[ProbeRange] = []
    for number in spread(count):
        start = round(step * number + (0 if whole else (step - length) / 2))
        end = round(step * (number + 1)) if whole else start + length
        found = _range_at(plan, pieces, start, end)
        if found is not None and found.pieces not in [other.pieces for other in ranges]:
            ranges.append(found)
    return ranges


def shortened(plan: Plan, probe: ProbeRange, size: int) -> ProbeRange:
    """The beginning of a range."""
    first = probe.pieces[0]
    if first.bytes <= size:
        return ProbeRange((first,))
    if not _by_bytes(plan, first):
        return ProbeRange((first,), size)
    return ProbeRange((PlannedPiece(file=first.file, start=first.start, end=first.start + size, bytes=size),))


def spread(count: int) -> list[int]:
    """0 … count-1 in the order of their reversed bits (van der Corput 1935): any beginning is spread evenly."""
    width = max(1, (count - 1).bit_length())
    return sorted(range(count), key=lambda number: f"{number:0{width}b}"[::-1])


def _range_at(plan: Plan, pieces: Sequence[PlannedPiece], start: int, end: int) -> ProbeRange | None:
    """What lies between two bytes of all the input; None if no uncuttable piece begins there."""
    inside: list[PlannedPiece] = []
    for piece, piece_end in zip(pieces, accumulate(piece.bytes for piece in pieces), strict=True):
        piece_start = piece_end - piece.bytes
        low, high = max(start, piece_start), min(end, piece_end)
        if low >= high:
            continue
        if _by_bytes(plan, piece):
            offset = piece.start - piece_start
            inside.append(PlannedPiece(file=piece.file, start=low + offset, end=high + offset, bytes=high - low))
        elif piece.bytes > end - start:
            return ProbeRange((piece,), end - start)
        elif start <= piece_start:  # a piece that is read whole belongs to the range in which it begins
            inside.append(piece)
    return ProbeRange(tuple(_joined(inside))) if inside else None


def _by_bytes(plan: Plan, piece: PlannedPiece) -> bool:
    probe = plan.files[piece.file].probe
    return probe.splittable and not probe.row_group_bytes


def _joined(pieces: Sequence[PlannedPiece]) -> Iterator[PlannedPiece]:
    """Ranges of one file that meet become one."""
    open_piece: PlannedPiece | None = None
    for piece in pieces:
        if open_piece is not None and (piece.file, piece.start) == (open_piece.file, open_piece.end):
            size = open_piece.bytes + piece.bytes
            open_piece = PlannedPiece(file=piece.file, start=open_piece.start, end=piece.end, bytes=size)
            continue
        if open_piece is not None:
            yield open_piece
        open_piece = piece
    if open_piece is not None:
        yield open_piece
