"""Reading files whose records are lines: JSON Lines, and plain text with one text a line.

A line belongs to the piece in which its first byte lies. Blank lines are no records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from lmbatch.corpus.document import Record, Rejected
from lmbatch.corpus.source import Source
from lmbatch.corpus.stream import Window, open_window

_SHOWN_BYTES = 256


class Line(NamedTuple):
    """A line without its line end. ``raw`` is only the beginning if ``length`` says more.

    ``end`` is the position behind the line end; a line that is not ``terminated`` is the last of its stream.
    """

    position: int
    length: int
    raw: bytes
    terminated: bool
    end: int


def read_json(source: Source) -> Iterator[Record]:
    """The records of a piece of a JSON Lines file."""
    make = source.make

    def record(line: Line) -> Record:
        lead = len(line.raw) - len(line.raw.lstrip())
        made = make.from_json(line.raw.strip(), line.position + lead)
        if line.terminated or not isinstance(made, Rejected) or made.reason not in ("invalid_json", "invalid_utf8"):
            return made
        detail = f"byte {line.position + line.length}: the file ends in it"
        return make.rejected(line.position, line.length, "truncated", detail, line.raw)

    return _read(source, record)


def read_text(source: Source) -> Iterator[Record]:
    """The records of a piece of a text file with one text a line."""
    make = source.make
    return _read(source, lambda line: make.from_text(line.raw, line.position))


def _read(source: Source, record: Callable[[Line], Record]) -> Iterator[Record]:
    make, seen = source.make, source.seen
    content, start = source.probe.content_start, source.piece.start
    with open_window(source.store, source.piece.path, max(content, start - 1) if start else 0) as window:
        for line in _lines_of_piece(window, source, content):
            if line.length > len(line.raw):
                yield make.too_large(line.position, line.length, line.raw)
            elif window.damage and not line.terminated:
                yield make.rejected(line.position, line.length, "truncated", "the stream breaks off in it", line.raw)
            elif not line.raw.isspace() and line.raw:
                yield record(line)
        if window.damage:
            yield make.rejected(seen.end_position, 0, "damaged_file", window.damage)


def _lines_of_piece(window: Window, source: Source, content: int) -> Iterator[Line]:
    """The lines that begin in the piece; notes where it began and stopped."""
    seen, at = source.seen, content
    if source.piece.start > content:  # the window begins one byte earlier, within the line before or at its end
        before = next(lines(window, window.base, 0), None)
        at = window.end if before is None else before.end
    seen.first_position = seen.end_position = at
    for line in lines(window, at, source.config.max_record_bytes):
        if source.stop is not None and line.position >= source.stop:
            return
        yield line
        seen.end_position = line.end


def lines(window: Window, at: int, limit: int) -> Iterator[Line]:
    """Every line from position ``at`` on; of one longer than ``limit`` bytes only the beginning is kept."""
    while at < window.end or window.more():
        # All that have ended in memory at once; what a window ends in is looked for by itself.
        last = window.data.rfind(b"\n", at - window.base)
        for raw in window.cut(at, window.base + last).split(b"\n") if last >= 0 else ():
            end = at + len(raw) + 1
            raw = raw.removesuffix(b"\r")
            yield Line(at, len(raw), raw, True, end)
            at = end
        if at < window.end or window.more():
            line = _line(window, at, limit)
            yield line
            at = line.end


def _line(window: Window, at: int, limit: int) -> Line:
    search, beginning = at, None
    while (found := window.data.find(b"\n", search - window.base)) < 0:
        search = window.end
        if beginning is None and search - at > max(limit, _SHOWN_BYTES) + len(b"\r\n"):
            beginning = window.cut(at, at + _SHOWN_BYTES)
        window.drop(at if beginning is None else search)
        if not window.more():
            break
    end = window.end if found < 0 else window.base + found
    raw = window.cut(at, end).removesuffix(b"\r") if beginning is None else beginning
    length = len(raw) if beginning is None else end - at
    return Line(at, length, raw, found >= 0, end + (found >= 0))
