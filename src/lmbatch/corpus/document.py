"""What a reader yields: documents, and records that could not become one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its place of origin.

    ``position`` is the byte offset of the record in its file (in the decompressed stream for .gz and .zst; the row
    number for Parquet and ``datasets`` folders). ``id`` is the corpus's own identifier, or None. ``changed`` names the
    cleaning rules that changed the text.
    """

    text: str
    path: str
    position: int
    id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that is set aside: quarantined because it is broken, or dropped because a rule names it.

    ``reason`` is a stable word such as ``invalid_utf8``; ``detail`` is a sentence; ``excerpt`` shows the beginning
    of the record, with bytes that are no UTF-8 replaced.
    """

    path: str
    position: int
    length: int
    reason: str
    detail: str
    excerpt: str = ""
    dropped: bool = False


Record = Document | Rejected
