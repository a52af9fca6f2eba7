"""Reading a JSON array by byte ranges, fast where it is sound and carefully where it is not.

Let R(x) be the first boundary (see ``boundaries``) at or after byte x, R(0) the beginning of the array's content and
R(size) the end of the file. A piece [a, b) owns the bytes [R(a), R(b)): pieces tile whatever lies in the file, and a
slice from one boundary to the next is read alike however the file was cut.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator

import orjson

from lmbatch.corpus.boundaries import CONTEXT_BYTES, boundaries, boundary_pattern, next_boundary
from lmbatch.corpus.document import Record
from lmbatch.corpus.json_careful import careful_records
from lmbatch.corpus.source import Source
from lmbatch.corpus.stream import Window, open_window

_SEPARATORS = b" \t\r\n,"


def read(source: Source) -> Iterator[Record]:
    """The records of a piece of a file that holds one JSON array."""
    content, start = source.probe.content_start, source.piece.start
    with open_window(source.store, source.piece.path, max(content, start - CONTEXT_BYTES) if start else 0) as window:
        while window.end < content and window.more():
            pass
        window.drop(min(content, window.end))
        reader = _ArrayReader(source, window)
        yield from reader.scanned() if source.probe.first_key is None else reader.sliced()
        if window.damage:
            yield source.make.rejected(source.seen.end_position, 0, "damaged_file", window.damage)


class _ArrayReader:
    def __init__(self, source: Source, window: Window) -> None:
        self._seen = source.seen
        self._window = window
        self._make = source.make
        self._limit = source.config.max_record_bytes
        self._wrapped = source.probe.wrapped
        self._start, self._stop = source.piece.start, source.stop
        self._pattern = boundary_pattern((source.probe.first_key or "").encode())
        self._ahead: Iterator[int] = iter(())  # boundaries in memory that were found and not yet reached

    def scanned(self) -> Iterator[Record]:
        """Every element of the file, where no first key marks the boundaries."""
        self._seen.first_position = self._window.base
        yield from self._carefully(self._window, lambda: True)
        self._seen.end_position = self._window.end

    def sliced(self) -> Iterator[Record]:
        """The records from the piece's first boundary to the next piece's."""
        at = self._first()
        self._seen.first_position = self._seen.end_position = self._window.end if at is None else at
        search = at if self._start == 0 else None
        while at is not None and (search is not None or self._stop is None or at < self._stop):
            found = self._find(at, at + 1 if search is None else search)
            if isinstance(found, _LongSlice):
                yield from self._carefully(Window(found, at), found.is_last)
                found = None if found.is_last() else found.end
            elif found is None:
                rest = self._window.cut(at, self._window.end)
                yield from self._carefully(_window_on(rest, at), lambda: True)
            else:
                raw = self._window.cut(at, found)
                record = self._sound(raw, at)
                if record is None:
                    yield from self._carefully(_window_on(raw, at), lambda: False)
                else:
                    yield record
            at, search = found, None
            self._seen.end_position = self._window.end if at is None else at

    def _first(self) -> int | None:
        """Where the piece begins, or None if nothing begins in the rest of the file."""
        window = self._window
        if self._start == 0:
            return window.base
        at = max(self._start, window.base)
        while (found := next_boundary(self._pattern, window, at)) is None:
            at = max(at, window.end - CONTEXT_BYTES)
            window.drop(at - CONTEXT_BYTES)
            if not window.more():
                return None
        return found

    def _find(self, at: int, search: int) -> int | _LongSlice | None:
        """The boundary that ends the slice which begins at ``at``; None at the end of the file."""
        for found in self._ahead:
            return found
        window = self._window
        while not (ahead := boundaries(self._pattern, window, search)):
            search = max(search, window.end - CONTEXT_BYTES)
            window.drop(at)
            if window.end - at > self._limit + CONTEXT_BYTES:
                return _LongSlice(window, self._pattern, at, search)
            if not window.more():
                return None
        self._ahead = iter(ahead)
        return next(self._ahead)

    def _sound(self, raw: bytes, position: int) -> Record | None:
        """The record between two boundaries if it is one and sound, as nearly always."""
        record = raw.strip(_SEPARATORS)
        try:
            value = orjson.loads(record)
        except orjson.JSONDecodeError:
            return None
        if type(value) is not dict:
            return None
        lead = 0 if raw.startswith(b"{") else raw.index(b"{")  # not all that begins a file is a boundary
        return self._make.from_object(value, record, position + lead)

    def _carefully(self, window: Window, is_last: Callable[[], bool]) -> Iterator[Record]:
        return careful_records(window, self._make, self._limit, self._wrapped, is_last)


class _LongSlice:
    """A slice that does not fit in memory, as a stream that ends at the next boundary or with the file.

    ``end`` is None until it was found.
    """

    def __init__(self, window: Window, pattern: re.Pattern[bytes], at: int, search: int) -> None:
        self._window, self._pattern = window, pattern
        self._at, self._search = at, search
        self.end: int | None = None
        self._ends_file = False

    def is_last(self) -> bool:
        """Does the file end with the slice? Known when the slice was read to its end."""
        return self._ends_file

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, none at the end; a part that may belong to a boundary waits until that is known."""
        while self.end is None and self._at >= self._search:
            self._look_further()
        ready = self._search if self.end is None else self.end
        data = self._window.cut(self._at, min(self._at + size, ready))
        self._at += len(data)
        return data

    def _look_further(self) -> None:
        window = self._window
        self.end = next_boundary(self._pattern, window, self._search)
        if self.end is None:
            self._search = max(self._search, window.end - CONTEXT_BYTES)
            window.drop(self._at - CONTEXT_BYTES)
            if self._at >= self._search and not window.more():
                self.end, self._ends_file = window.end, True


def _window_on(raw: bytes, position: int) -> Window:
    return Window(io.BytesIO(raw), position)
