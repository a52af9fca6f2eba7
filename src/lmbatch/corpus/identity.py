"""Which split a document belongs to: a pure function of what it is, not of where it lies."""

from __future__ import annotations

import hashlib

from lmbatch.config import SplitConfig
from lmbatch.corpus.document import Document
from lmbatch.store.manifest import Split

_RANGE = 2**64


def split_of(document: Document, config: SplitConfig) -> Split:
    """The split of a document, by BLAKE2b of the salt and its identity (its id, or else its text).

    Another number of tasks or another order of files changes nothing; equal texts without ids stay together.
    """
    draw = int.from_bytes(_digest(document, config.salt), "big")
    return "validation" if draw < int(config.validation_fraction * _RANGE) else "train"


def _digest(document: Document, salt: str) -> bytes:
    kind, identity = ("text", document.text) if document.id is None else ("id", document.id)
    # The zero bytes keep ("ab", "c") and ("a", "bc") apart.
    message = f"{salt}\0{kind}\0{identity}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(message, digest_size=8).digest()
