"""Which split a document belongs to: a pure function of what it is, not of where it lies."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from lmbatch.config import SplitConfig
from lmbatch.corpus.document import Document
from lmbatch.store.manifest import Split

_DIGEST_BYTES = 8
_RANGE = 2 ** (8 * _DIGEST_BYTES)


def split_of(document: Document, config: SplitConfig) -> Split:
    """The split of a document, by BLAKE2b of the salt and its identity (its id, or else its text).

    Another number of tasks or another order of files changes nothing; equal texts without ids stay together.
    """
    drawn = _digest(document, config.salt)
    return "validation" if drawn < _threshold(config.validation_fraction) else "train"


@lru_cache
def _threshold(fraction: float) -> bytes:
    # Big-endian numbers of one length are ordered as their bytes are.
    return int(fraction * _RANGE).to_bytes(_DIGEST_BYTES, "big")


def _digest(document: Document, salt: str) -> bytes:
    kind, identity = ("text", document.text) if document.id is None else ("id", document.id)
    # The zero bytes keep ("ab", "c") and ("a", "bc") apart.
    message = f"{salt}\0{kind}\0{identity}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(message, digest_size=_DIGEST_BYTES).digest()
