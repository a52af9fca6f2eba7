"""Splitting a JSON array into its elements by its structure alone, linear in its length and in bounded memory.

The slow and careful way; ``json_array`` uses it where the fast one does not fit. The grammar is RFC 8259's, as far as
is needed to notice damage soon: after a byte that cannot stand there the scanner goes on at the next object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lmbatch.corpus.boundaries import CONTEXT_BYTES, any_boundary
from lmbatch.corpus.stream import Window

_MAX_DEPTH = 1024  # orjson's own limit
_SPACE = re.compile(rb"[ \t\r\n]*+")
_SEPARATORS = re.compile(rb"[ \t\r\n,]*+")
_TOKEN = re.compile(rb'["{}\[\],:]|(?:-?[0-9][0-9eE.+-]*+|true|false|null)(?![0-9A-Za-z])')
_CUT_OFF = re.compile(rb"-|t(?:r|ru)?|f(?:a|al|als)?|n(?:u|ul)?")
_STRING_REST = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_ARRAY_END = re.compile(rb"\][ \t\r\n]*+\}?[ \t\r\n]*+\Z")
_PUNCTUATION = tuple(bytes([byte]) for byte in b'"{}[],:')
_LONGEST_LITERAL = 64
_KEPT_BYTES = 256
_PAIRS = {ord("}"): ord("{"), ord("]"): ord("[")}

_QUOTE, _COMMA, _COLON, _CLOSE = b'",:]'
_OPENERS = (ord("{"), ord("["))
_END, _BAD, _LITERAL = -1, -2, -3

Fault = Literal["", "too_large", "unfinished", "damaged"]


@dataclass(frozen=True, slots=True)
class Element:
    """One element of the array. ``raw`` is the whole of it, or only its beginning if there is a ``fault``.

    ``unfinished``: the data ended within it. ``damaged``: the byte at ``fault_position`` cannot stand there.
    """

    position: int
    length: int
    raw: bytes
    fault: Fault = ""
    fault_position: int = 0


class ArrayScanner:
    """Reads elements from a window that begins within an array, up to the array's ``]`` or the window's end.

    ``closed_at`` is the position of that ``]``, or None if it was not found.
    """

    def __init__(self, window: Window, limit: int) -> None:
        self._window = window
        self._limit = limit
        self._at = window.base
        self._start: int | None = None  # of the element that is being read
        self._kept = b""  # its beginning, once it is too large to be kept whole
        self._token_at = self._string_at = self._at
        self._astray = False  # after damage, brackets no longer tell how deep we are
        self.closed_at: int | None = None

    def elements(self) -> Iterator[Element]:
        """The elements in order; superfluous commas are passed over, one missing between two objects is not missed."""
        separated = True
        while (token := self._next()) != _END:
            if token == _COMMA:
                self._pass(_SEPARATORS)
                separated = True
            elif token != _CLOSE:
                yield self._element(token, separated or token == _OPENERS[0])
                separated = False
            elif self._closes_array():
                return

    def _closes_array(self) -> bool:
        """Is the ``]`` just passed the end of the array? When astray, only if nothing follows it."""
        position = self._at - 1
        while self._astray and self._window.end - position < CONTEXT_BYTES and self._window.more():
            pass
        if self._astray and not _ARRAY_END.match(self._window.data, position - self._window.base):
            return False
        self.closed_at = position
        return True

    def _element(self, token: int, may_begin: bool) -> Element:
        self._start, self._kept = self._token_at, b""
        self._string_at = self._token_at
        fault = self._walk(token) if may_begin else "damaged"
        element = self._damaged() if fault == "damaged" else self._finished(fault)
        self._start = None
        return element

    def _walk(self, token: int) -> Fault:
        """Go through one value, whose first token is given, to the position behind it."""
        open_: bytearray = bytearray()
        previous = _COLON
        while True:
            if token == _END:
                return "unfinished"
            if not _may_follow(previous, token, open_):
                return "damaged"
            if token == _QUOTE:
                self._string_at = self._token_at
                if not self._pass_string():
                    return "unfinished"
            if token in _OPENERS:
                open_.append(token)
            elif token in _PAIRS:
                open_.pop()
            if not open_:
                return ""
            previous, token = token, self._next()

    def _finished(self, fault: Fault) -> Element:
        assert self._start is not None
        length = self._at - self._start
        if self._kept or length > self._limit:
            return Element(self._start, length, self._beginning()[:length], fault or "too_large")
        return Element(self._start, length, self._window.cut(self._start, self._at), fault)

    def _damaged(self) -> Element:
        """Skip to the next place at which an object begins.

        It may lie at the end of what was taken for a string: a lost quote swallows the beginning of the next record.
        """
        assert self._start is not None
        start, fault_position, raw = self._start, self._token_at, self._beginning()
        self._start, self._astray = None, True
        self._at = max(self._string_at, start + 1, self._window.base)
        while (found := any_boundary(self._window, self._at)) is None:
            self._at = max(self._at, self._window.end - CONTEXT_BYTES)
            self._window.drop(self._at - CONTEXT_BYTES)
            if not self._window.more():
                self._give_up()
                break
        else:
            self._at = found
        return Element(start, self._at - start, raw[: self._at - start], "damaged", fault_position)

    def _give_up(self) -> None:
        ending = _ARRAY_END.search(self._window.data, max(0, len(self._window.data) - CONTEXT_BYTES))
        self._at = self._window.end
        if ending:
            self._at = self.closed_at = self._window.base + ending.start()

    def _next(self) -> int:
        """The first byte of the next token, passed; _LITERAL for a number or a word, _BAD, or _END."""
        self._pass(_SPACE)
        window = self._window
        while True:
            self._token_at = self._at
            if self._at == window.end:
                return _END
            match = _TOKEN.match(window.data, self._at - window.base)
            token = match[0] if match else b""
            whole = match is not None and match.end() < len(window.data)
            if whole or window.end - self._at > _LONGEST_LITERAL or not self._more():
                break
        if not token and window.ended and _CUT_OFF.fullmatch(window.data, self._at - window.base):
            self._at = window.end
            return _END
        self._at += len(token)
        return _BAD if not token else token[0] if token in _PUNCTUATION else _LITERAL

    def _pass_string(self) -> bool:
        """From behind the opening quote to behind the closing one. False if the data ends before."""
        window = self._window
        while True:
            self._pass(_STRING_REST)
            if window.end - self._at > 0 and window.data[self._at - window.base] == _QUOTE:
                self._at += 1
                return True
            if not self._more():  # a backslash as the last byte needs the byte behind it
                self._at = window.end
                return False

    def _pass(self, pattern: re.Pattern[bytes]) -> None:
        while True:
            match = pattern.match(self._window.data, self._at - self._window.base)
            self._at = self._window.base + match.end() if match else self._at
            if self._at < self._window.end or not self._more():
                return

    def _more(self) -> bool:
        """Read on, keeping the element's bytes as long as it is not too large."""
        if self._start is not None and not self._kept and self._at - self._start > max(self._limit, _KEPT_BYTES):
            self._kept = self._beginning()
        keep = self._start if self._start is not None and not self._kept else self._at
        self._window.drop(max(self._window.base, keep - CONTEXT_BYTES))
        return self._window.more()

    def _beginning(self) -> bytes:
        assert self._start is not None
        return self._kept or self._window.cut(self._start, min(self._start + _KEPT_BYTES, self._window.end))


def _may_follow(previous: int, token: int, open_: bytearray) -> bool:
    """Can ``token`` stand behind ``previous``? Loose where the parser decides anyway, strict about containers."""
    if token in (_BAD, _COMMA, _COLON):
        return token != _BAD and bool(open_) and previous not in _OPENERS
    if token in _PAIRS:
        return bool(open_) and open_[-1] == _PAIRS[token]
    if token in _OPENERS:
        inside_array = bool(open_) and open_[-1] == _OPENERS[1]
        begins_value = previous == _COLON or (inside_array and previous in (_COMMA, _OPENERS[1]))
        return begins_value and len(open_) < _MAX_DEPTH
    return True
