"""The documents of the demo corpus, and the bytes of its files. Pure, but for reading the SQLite file.

WuDao 2.0's records are ``{id, uniqueKey, titleUkey, dataType, title, content}``, one JSON array a file, files sorted by
category and named like ``part-2021278643.json``. Its white space is not documented, so each file here has another.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

NOVEL = "古典小说"
_FILES: dict[str, dict[str, Any]] = {
    "part-2021009337.json": {"separators": (",", ":")},
    "part-2021011897.json": {"indent": 4},
    "part-202101281a.json": {},
    "part-2021278643.json": {"separators": (",\n", ": ")},
}
_LAWS = "SELECT law_id, law_name, law_department, version_date FROM laws ORDER BY law_id"
_ARTICLES = "SELECT article_no, article_text FROM articles WHERE law_id = ? ORDER BY id"


@dataclass(frozen=True, slots=True)
class DemoDocument:
    """One document before it gets its number; ``key`` is unique in the corpus."""

    key: str
    category: str
    title: str
    content: str


def statutes(database: Path) -> list[DemoDocument]:
    """One document per law: its articles, each on a line of its own behind its number."""
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        return [
            DemoDocument(f"{law}:{version}", category or "法律", title, _law_text(connection, law))
            for law, title, category, version in connection.execute(_LAWS).fetchall()
        ]


def _law_text(connection: sqlite3.Connection, law: str) -> str:
    # The ideographic space is what printed statutes have between an article's number and its text.
    return "\n".join(f"{number}\u3000{text}" for number, text in connection.execute(_ARTICLES, (law,)))


def chapters(novel: bytes) -> list[DemoDocument]:
    """One document per chapter of a JSON list of texts; the first line of a chapter is its title."""
    texts = json.loads(novel)
    return [DemoDocument(f"sanguo:{n}", NOVEL, _title(text), text) for n, text in enumerate(texts, 1)]


def _title(text: str) -> str:
    return text.strip().partition("\n")[0].replace("\u3000", " ").strip()


def demo_files(documents: Sequence[DemoDocument]) -> dict[str, bytes]:
    """The corpus files by name: documents sorted by category, numbered, and cut into files of nearly equal size."""
    ordered = sorted(documents, key=lambda document: (document.category, document.key))
    ends = list(accumulate(len(document.content) for document in ordered))
    files: dict[str, list[dict[str, Any]]] = {name: [] for name in _FILES}
    names = list(files)
    for number, (document, end) in enumerate(zip(ordered, ends, strict=True)):
        middle = end - len(document.content) / 2
        files[names[min(len(names) - 1, int(middle * len(names) / max(1, ends[-1])))]].append(_record(document, number))
    return {name: _array(records, _FILES[name]) for name, records in files.items()}


def _record(document: DemoDocument, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "uniqueKey": _hex(document.key),
        "titleUkey": _hex(document.title),
        "dataType": document.category,
        "title": document.title,
        "content": document.content,
    }


def _hex(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _array(records: list[dict[str, Any]], style: dict[str, Any]) -> bytes:
    return json.dumps(records, ensure_ascii=False, **style).encode()
