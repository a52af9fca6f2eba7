"""Blocked words: a text that holds one of them is dropped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

from lmbatch.errors import ConfigError


def read_words(path: str, sha256: str | None) -> list[str]:
    """The words of a file, one a line. Raises ConfigError if it is not there, not UTF-8, empty, or another file."""
    where, remedy = f"cleaning.blocked_words: {path}", "give the file that the plan was made with"
    try:
        data = Path(path).read_bytes()
        words = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror or error}", remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: byte {error.start}: no UTF-8", remedy="save it as UTF-8") from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ConfigError(f"{where}: has changed since the config was read (sha256 {sha256[:12]}…)", remedy=remedy)
    if not any(words):
        raise ConfigError(f"{where}: holds no word", remedy="write one word a line, or leave the key out")
    return sorted({word for word in words if word})


def complain_of_words(words: Iterable[str]) -> Callable[[str], str | None]:
    """A filter: names the first blocked word (in sorted order) that the text holds, or None.

    Words are looked for only where their first two characters stand together in the text, so that the cost hardly
    grows with their number.
    """
    by_start: dict[str, list[str]] = {}
    for word in words:
        by_start.setdefault(word[:2], []).append(word)
    short = frozenset(start for start in by_start if len(start) == 1)
    starts = frozenset(by_start) - short

    def complain(text: str) -> str | None:
        pairs = set(map("".join, pairwise(text)))
        found = [word for start in starts & pairs for word in by_start[start] if word in text]
        found += [start for start in short if start in text]
        return f"it holds {min(found)!r}" if found else None

    return complain
