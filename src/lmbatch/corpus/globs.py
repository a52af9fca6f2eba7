"""Glob patterns over the keys of a store."""

from __future__ import annotations

import re
from collections.abc import Iterable


def matches(path: str, include: Iterable[str], exclude: Iterable[str] = ()) -> bool:
    """Does one pattern of ``include`` fit the whole path, and none of ``exclude``?

    ``*`` and ``?`` stay within a folder, ``**`` crosses folders, ``[0-9]`` and ``[!a]`` are classes.
    """
    return _any(path, include) and not _any(path, exclude)


def _any(path: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(_expression(pattern), path) for pattern in patterns)


_GLOB = re.compile(r"(?:^|(?<=/))\*\*/|\*\*|\*|\?|\[[!^]?\]?[^\]/]*\]|.", re.DOTALL)
_FIXED = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _expression(pattern: str) -> str:
    return "(?s:" + "".join(_translate(token[0]) for token in _GLOB.finditer(pattern.removeprefix("./"))) + ")"


def _translate(token: str) -> str:
    if token in _FIXED:
        return _FIXED[token]
    if len(token) > 1:  # a class such as [0-9] or [!a]
        body = token[1:-1].replace("\\", "\\\\").replace("[", "\\[")
        return f"(?!/)[{'^' + body[1:] if body[0] in '!^' else body}]"
    return re.escape(token)
