"""Records out of a stretch of a JSON array that is damaged, oversized, or of no regular shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import orjson

from lmbatch.corpus.document import Record, Rejected
from lmbatch.corpus.fields import RecordMaker
from lmbatch.corpus.json_scanner import ArrayScanner, Element
from lmbatch.corpus.stream import Window

_SPACE = b" \t\r\n"
_TAIL_BYTES = 64 * 2**10  # what may follow the array within its wrapper


def careful_records(
    window: Window, make: RecordMaker, limit: int, wrapped: bool, is_last: Callable[[], bool]
) -> Iterator[Record]:
    """Every element in ``window`` as a record of its own, whatever its neighbours are.

    ``is_last`` tells, once the window was read to its end, whether the file ends there as well: then the array must
    be closed, and in a wrapper that too; a Rejected says so if not. Elements are at most ``limit`` bytes.
    """
    scanner = ArrayScanner(window, limit)
    unfinished = False
    for element in scanner.elements():
        unfinished = element.fault == "unfinished"
        yield _record(element, make, window, unfinished and is_last())
    if scanner.closed_at is not None:
        yield from _after_the_array(window, make, scanner.closed_at, wrapped, is_last)
    elif is_last() and not unfinished:
        yield make.rejected(window.end, 0, "truncated", "the file ends before the array is closed with `]`")


def _record(element: Element, make: RecordMaker, window: Window, truncated: bool) -> Record:
    position, length, raw = element.position, element.length, element.raw
    match element.fault:
        case "too_large":
            return make.too_large(position, length, raw)
        case "unfinished" if truncated:
            return make.rejected(position, length, "truncated", f"byte {window.end}: the file ends in it", raw)
        case "unfinished":
            detail = f"byte {window.end}: it is not finished where the next record begins"
            return make.rejected(position, length, "invalid_json", detail, raw)
        case "damaged":
            detail = f"byte {element.fault_position}: what stands here is no JSON"
            return make.rejected(position, length, "invalid_json", detail, raw)
    return make.from_json(raw, position)


def _after_the_array(
    window: Window, make: RecordMaker, closed_at: int, wrapped: bool, is_last: Callable[[], bool]
) -> Iterator[Rejected]:
    window.drop(closed_at)
    tail = _drain(window)[1:]
    end = window.end
    if not is_last():
        detail = f"byte {closed_at}: the array is closed here, but records follow"
        yield make.rejected(closed_at, end - closed_at, "trailing_garbage", detail, tail)
        return
    rest = tail.lstrip(_SPACE)
    if wrapped and not rest:
        yield make.rejected(end, 0, "truncated", "the file ends before the object around the array is closed with `}`")
    if wrapped and _closes_wrapper(tail):
        return
    rest = rest.removeprefix(b"}").lstrip(_SPACE) if wrapped else rest
    if rest:
        position = closed_at + 1 + len(tail) - len(rest)
        detail = f"byte {position}: something follows the end of the array"
        yield make.rejected(position, end - position, "trailing_garbage", detail, rest)


def _drain(window: Window) -> bytes:
    """Read to the end; the first bytes of what was left."""
    kept = b""
    while True:
        kept += bytes(window.data[: _TAIL_BYTES - len(kept)])
        window.drop(window.end)
        if not window.more():
            return kept


def _closes_wrapper(tail: bytes) -> bool:
    """Is ``tail`` what may follow the array in ``{"RECORDS": […]``: the end, or more fields and the end?"""
    try:
        orjson.loads(b'{"":0' + tail)
    except orjson.JSONDecodeError:
        return False
    return True
