"""What is done to a document between reading and tokenizing; the place where cleaning rules and filters go."""

from __future__ import annotations

from collections.abc import Callable

from lmbatch.config import CleaningConfig
from lmbatch.corpus.document import Document, Rejected

Cleaner = Callable[[Document], Document | Rejected]


def build_cleaner(config: CleaningConfig) -> Cleaner:
    """A pure function from a document to the cleaned one, or to a Rejected that names the rule (``dropped=True``)."""
    match config.preset:
        case "none":
            return _unchanged


def _unchanged(document: Document) -> Document | Rejected:
    return document
