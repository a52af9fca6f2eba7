"""The head of a JSON file: is it the array that the corpus promises, and what do its records begin with?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import orjson

from lmbatch.corpus.boundaries import usable_key
from lmbatch.corpus.json_scanner import ArrayScanner, Element
from lmbatch.corpus.splitting import FileProbe
from lmbatch.corpus.stream import Window
from lmbatch.errors import CorpusError

_HEAD_BYTES = 256 * 2**10
_SHOWN_BYTES = 40
_ARRAY = re.compile(rb'(\{\s*"(?:[^"\\]|\\.)*+"\s*:\s*)?\[', re.DOTALL)
_FIRST_KEY = re.compile(rb'\{\s*"((?:[^"\\]|\\.)*+)"\s*:', re.DOTALL)


def probe_array(window: Window, first: int, found: FileProbe, where: str) -> FileProbe:
    """Complete ``found`` for a JSON array, bare or as the first field of an object (``{"RECORDS": […``).

    ``first`` is the position of the first byte that is no white space. Raises CorpusError for anything else.
    """
    match = _ARRAY.match(window.data, first - window.base)
    if match is None:
        raise _no_array(bytes(window.data[first - window.base :]), first, where)
    content = window.base + match.end()
    elements = _elements(window.cut(content, window.end), content)
    key = _first_key(elements)
    why_not = found.why_not or _unmarked(key, elements)
    return found.model_copy(
        update={
            "content_start": content,
            "wrapped": match[1] is not None,
            "first_key": None if _unmarked(key, elements) else key,
            "splittable": not why_not,
            "why_not": why_not,
        }
    )


def refuse_array(window: Window, first: int, where: str) -> None:
    """Raises CorpusError if a file that should be JSON Lines is one array of objects."""
    if re.match(rb"\[\s*\{", window.data[first - window.base :]):
        raise CorpusError(
            f"{where}: byte {first}: a JSON array begins here, not JSON Lines", remedy="set corpus.format: json_array"
        )


def _elements(head: bytes, position: int) -> list[Element]:
    return list(ArrayScanner(Window(BytesIO(head[:_HEAD_BYTES]), position), _HEAD_BYTES).elements())


def _first_key(elements: list[Element]) -> str | None:
    """The commonest first key, as raw as it stands in the file; the earliest of several."""
    keys = Counter(match[1] for element in elements if (match := _FIRST_KEY.match(element.raw)))
    key = next((key for key, _ in keys.most_common(1)), b"")
    try:
        return key.decode() if usable_key(key) else None
    except UnicodeDecodeError:
        return None


def _unmarked(key: str | None, elements: list[Element]) -> str:
    """Why boundaries cannot be told by ``key``; empty if they can."""
    if key is None:
        return "its records have no first key that could mark them"
    name = orjson.loads(f'"{key}"')
    if any(name in inner for element in elements for inner in _objects_in_lists(_parsed(element))):
        return f"its records hold lists of objects with the same key {name!r}"
    return ""


def _parsed(element: Element) -> Any:
    try:
        return None if element.fault else orjson.loads(element.raw)
    except orjson.JSONDecodeError:
        return None


def _objects_in_lists(value: Any) -> Iterator[dict[str, Any]]:
    """Every object that is an element of a list somewhere in ``value``, however deep."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            yield from (inner for inner in value if isinstance(inner, dict))
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()


def _no_array(head: bytes, position: int, where: str) -> CorpusError:
    shown = head[:_SHOWN_BYTES].decode(errors="replace")
    remedy = "set corpus.format to what the file is, or leave it out with corpus.exclude"
    if head.startswith(b"<"):
        remedy = "this looks like a web page that was saved in place of the data: get the file again"
    elif head.startswith(b"{"):
        remedy = "if every line is an object of its own, set corpus.format: json_lines"
    elif head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        remedy = "it is compressed: its name must end in .gz or .zst"
    return CorpusError(f"{where}: byte {position}: a JSON array must begin here, not {shown!r}", remedy=remedy)
