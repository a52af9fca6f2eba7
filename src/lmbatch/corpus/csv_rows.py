"""Reading CSV with a header line; quoted fields may hold line ends, delimiters and doubled quotes (RFC 4180)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import NamedTuple

from lmbatch.config import CorpusConfig
from lmbatch.corpus.document import Record
from lmbatch.corpus.fields import RecordMaker
from lmbatch.corpus.source import Source
from lmbatch.corpus.stream import Window, open_window
from lmbatch.errors import CorpusError

_KEPT_BYTES = 256
_QUOTED_REST = re.compile(rb'[^"]*+(?:""[^"]*+)*+')
_QUOTE = ord('"')


class Row(NamedTuple):
    """A row without its line end. ``raw`` is only the beginning if ``length`` says more.

    ``open_quote``: the stream ended within a quoted field; ``terminated``: the row has a line end.
    """

    position: int
    length: int
    raw: bytes
    open_quote: bool
    terminated: bool
    end: int


def read(source: Source) -> Iterator[Record]:
    """The records of a CSV file."""
    with open_window(source.store, source.piece.path) as window:
        found = rows(window, source.probe.content_start, source.config)
        header = next(row for row in found if row.raw)
        names = _fields(header.raw.decode(), source.config)
        source.seen.first_position = source.seen.end_position = header.end
        for row in found:
            source.seen.end_position = row.end
            if row.raw:
                yield _record(row, names, source.config, source.make, window)
        if window.damage:
            yield source.make.rejected(source.seen.end_position, 0, "damaged_file", window.damage)


def check_header(window: Window, at: int, config: CorpusConfig, where: str) -> None:
    """Raises CorpusError if the first row does not name every text field once."""
    header = next(row for row in rows(window, at, config) if row.raw)
    try:
        names = _fields(header.raw.decode(), config)
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(
            f"{where}: byte {header.position}: the header is unreadable: {error}", remedy="correct the first line"
        ) from error
    for field in config.text_fields:
        if names.count(field) != 1:
            raise CorpusError(
                f"{where}: the header names the column {field!r} {names.count(field)} times: {', '.join(names)}",
                remedy="set corpus.text_fields to a column that is there once, or correct corpus.csv_delimiter",
            )


def _record(row: Row, names: list[str], config: CorpusConfig, make: RecordMaker, window: Window) -> Record:
    if row.length > len(row.raw) and not row.open_quote:
        return make.too_large(row.position, row.length, row.raw)
    if row.open_quote or (window.damage and not row.terminated):
        detail = f"byte {row.end}: the file ends within the row"
        return make.rejected(row.position, row.length, "truncated", detail, row.raw)
    if row.length > config.max_record_bytes:
        return make.too_large(row.position, row.length, row.raw)
    try:
        values = _fields(row.raw.decode(), config)
    except UnicodeDecodeError as error:
        return make.invalid_utf8(row.position, error, row.raw)
    except csv.Error as error:
        return make.rejected(row.position, row.length, "invalid_csv", str(error), row.raw)
    if len(values) != len(names):
        detail = f"the row has {len(values)} fields, the header {len(names)}"
        return make.rejected(row.position, row.length, "wrong_number_of_fields", detail, row.raw)
    return make.from_fields(dict(zip(names, values, strict=True)), row.position, row.length, row.raw)


def _fields(text: str, config: CorpusConfig) -> list[str]:
    csv.field_size_limit(max(csv.field_size_limit(), config.max_record_bytes))  # the module's own is 128 KiB
    return next(csv.reader([text], delimiter=config.csv_delimiter))


def rows(window: Window, at: int, config: CorpusConfig) -> Iterator[Row]:
    """Every row from position ``at`` on; of one longer than ``max_record_bytes`` only the beginning is kept."""
    while at < window.end or window.more():
        row = _RowScanner(window, at, config).row()
        yield row
        at = row.end


class _RowScanner:
    """Finds the end of one row, in bounded memory however long it is.

    As in Python's ``csv``, a quote opens a field only at the field's beginning; elsewhere it is text.
    """

    def __init__(self, window: Window, at: int, config: CorpusConfig) -> None:
        self._window = window
        self._start = self._at = at
        self._limit = max(config.max_record_bytes, _KEPT_BYTES)
        self._beginning: bytes | None = None
        self._delimiter = config.csv_delimiter.encode()
        self._stop = re.compile(b"\n|" + re.escape(self._delimiter) + b'"')

    def row(self) -> Row:
        """The row, and the position behind its line end."""
        quoted = self._byte() == _QUOTE
        self._at += quoted
        while not quoted or self._pass_quoted():
            stop = self._pass_unquoted()
            if stop != self._delimiter + b'"':
                return self._found(self._at - len(stop), terminated=bool(stop))
            quoted = True
        return self._found(self._window.end, open_quote=True)

    def _pass_quoted(self) -> bool:
        """To behind the closing quote; False if the stream ends before."""
        window = self._window
        while True:
            match = _QUOTED_REST.match(window.data, self._at - window.base)
            self._at = window.base + match.end() if match else self._at
            if window.end - self._at > 1 or not self._more():  # a last quote may be the first of two
                break
        closed = self._byte() == _QUOTE
        self._at += closed
        return closed

    def _pass_unquoted(self) -> bytes:
        """To behind the row's line end or the next opening quote, whichever comes first; returns what was passed."""
        window = self._window
        while (match := self._stop.search(window.data, self._at - window.base)) is None:
            self._at = max(self._at, window.end - len(self._delimiter))
            if not self._more():
                self._at = window.end
                return b""
        self._at = window.base + match.end()
        return match[0]

    def _byte(self) -> int | None:
        return self._window.data[self._at - self._window.base] if self._at < self._window.end else None

    def _more(self) -> bool:
        if self._beginning is None and self._at - self._start > self._limit + len(b"\r\n"):
            self._beginning = self._window.cut(self._start, self._start + _KEPT_BYTES)
        self._window.drop(self._start if self._beginning is None else self._at)
        return self._window.more()

    def _found(self, end: int, open_quote: bool = False, terminated: bool = False) -> Row:
        whole = self._beginning is None
        raw = self._beginning or self._window.cut(self._start, end).removesuffix(b"\r")
        length = len(raw) if whole else end - self._start
        return Row(self._start, length, raw, open_quote, terminated, self._at)
