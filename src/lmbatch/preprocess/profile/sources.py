"""Counts by source: by input file (by folder where a task has very many), and by the values of one field."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from lmbatch.preprocess.profile.schema import Counts

LONGEST_VALUE = 80  # characters
_COUNTED_VALUES = 1000  # values that are told apart while a task runs
_STORED_VALUES = 50  # those that its profile names


@dataclass(slots=True)
class Tally:
    """Counts while they grow."""

    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    dropped: int = 0
    quarantined: int = 0

    def add(self, documents: int, tokens: int, text_bytes: int) -> None:
        """So many documents were written."""
        self.documents += documents
        self.tokens += tokens
        self.text_bytes += text_bytes

    def counts(self) -> Counts:
        """As they are stored."""
        return Counts(**asdict(self))


def folder_depth(paths: Collection[str], limit: int) -> int | None:
    """How deep to cut the paths so that at most ``limit`` names are left; None if they need no cutting."""
    names: Collection[str] = set(paths)
    depth = max((name.count("/") for name in names), default=0)
    if len(names) <= limit:
        return None
    while depth > 0:
        names = {name_at(name, depth) for name in names}
        if len(names) <= limit:
            break
        depth -= 1
    return depth


def name_at(path: str, depth: int | None) -> str:
    """The path itself, or its first ``depth`` folders with a slash at the end where it lies deeper; "/" is all.

    >>> name_at("a/b/c.json", 1), name_at("a/b/", 2), name_at("c.json", 1), name_at("c.json", 0)
    ('a/', 'a/b/', 'c.json', '/')
    """
    if depth is None:
        return path
    parts = path.split("/")
    return path if len(parts) <= depth else "/".join(parts[:depth]) + "/"


@dataclass(slots=True)
class ValueTallies:
    """Counts by the values of a field, in bounded memory.

    Which values are told apart depends on the order of a task's records alone, which is always the same.
    """

    name: str | None
    values: dict[str, Tally] = field(default_factory=dict)
    other: Tally = field(default_factory=Tally)
    without: Tally = field(default_factory=Tally)

    def of(self, metadata: dict[str, Any]) -> Tally:
        """The counts that a record with this metadata belongs to."""
        value = metadata.get(self.name) if self.name is not None else None
        if value is None or value == "":
            return self.without
        text = _plain(value)
        found = self.values.get(text)
        if found is None:
            if len(self.values) >= _COUNTED_VALUES:
                return self.other
            found = self.values[text] = Tally()
        return found

    def stored(self) -> tuple[dict[str, Counts], Counts]:
        """The values with the most tokens, by name, and all others together."""
        counts = {name: tally.counts() for name, tally in self.values.items()}
        ranked = sorted(counts, key=lambda name: (-counts[name].tokens, -counts[name].dropped, name))
        other = sum((counts[name] for name in ranked[_STORED_VALUES:]), self.other.counts())
        return {name: counts[name] for name in sorted(ranked[:_STORED_VALUES])}, other


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text[:LONGEST_VALUE].encode("utf-8", "replace").decode()
