"""Places in a JSON array at which a record certainly begins, found without reading what lies before.

A raw ``"`` cannot occur inside a JSON string (RFC 8259, section 7), so ``{"K":`` with white space between the tokens
is never text: it is an object whose first key is K. Behind a colon it is the value of a field; everywhere else it is
an element, or the next sound thing after damage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lmbatch.corpus.stream import Window

_SPACE = b" \t\r\n"
_MAX_SPACE = 4096  # white space allowed between two tokens; with more, a place is not taken for a boundary
_MAX_KEY = 256  # bytes of a first key
_GAP = rb"[ \t\r\n]{0,%d}+" % _MAX_SPACE
_ANY_KEY = rb'(?:[^"\\]|\\.){0,%d}' % _MAX_KEY

CONTEXT_BYTES = 4 * _MAX_SPACE + _MAX_KEY  # more than a boundary and the white space before it can take


def boundary_pattern(key: bytes) -> re.Pattern[bytes]:
    """The beginning of an object whose first key is ``key``, as raw bytes between the quotes."""
    return _pattern(re.escape(key))


def usable_key(key: bytes) -> bool:
    """Can ``key`` mark a boundary? One of punctuation alone could be what lies between two strings."""
    return 0 < len(key) <= _MAX_KEY and bool(key.strip(b" \t\r\n,:{}[]"))


def next_boundary(pattern: re.Pattern[bytes], window: Window, position: int) -> int | None:
    """Position of the first boundary at or after ``position`` that lies wholly in memory, or None.

    The bytes before ``position`` that are in memory (CONTEXT_BYTES of them suffice) are looked at for a colon.
    """
    starts = _starts(pattern, window.data, max(0, position - window.base))
    return next((window.base + start for start in starts if not _is_value(window.data, start)), None)


def boundaries(pattern: re.Pattern[bytes], window: Window, position: int) -> list[int]:
    """Positions of all of them from ``position`` on, in order; the first is what ``next_boundary`` gives."""
    data, base = window.data, window.base
    found = _starts(pattern, data, max(0, position - base))
    return [base + start for start in found if not _is_value(data, start)]


def _starts(pattern: re.Pattern[bytes], data: bytearray, at: int) -> Iterator[int]:
    """Where ``finditer`` finds matches; braces are rare in text, and ``find`` takes a tenth of the steps to one."""
    while (at := data.find(b"{", at)) >= 0:
        found = pattern.match(data, at)
        if found:
            yield at
        at = found.end() if found else at + 1


def _is_value(data: bytearray, start: int) -> bool:
    """Does a colon stand before ``start``?"""
    before = data[max(0, start - 1) : start]
    return before != b"," and (
        before.rstrip(_SPACE) or data[max(0, start - _MAX_SPACE) : start].rstrip(_SPACE)
    ).endswith(b":")


def any_boundary(window: Window, position: int) -> int | None:
    """The same for an object with any first key; good enough to go on at after damage."""
    return next_boundary(_ANY, window, position)


def _pattern(key: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"\{" + _GAP + b'"' + key + b'"' + _GAP + b":", re.DOTALL)


_ANY = _pattern(_ANY_KEY)
