"""Hugging Face ``tokenizers``: the engine that every other is measured against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from tokenizers import Tokenizer

from lmbatch.tokens.cutting import Cutter
from lmbatch.tokens.engines.protocol import Ids

# An Encoding costs above 100 bytes a token until it is dropped, so few tokens are kept as Encodings at once.
_CHARACTERS_AT_ONCE = 1 << 17


class HuggingFaceEngine:
    """Bounded memory: texts are handed over in small groups, a long one in pieces where ids provably do not change."""

    name = "huggingface"

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend
        self._cutter = Cutter.of(backend)

    def encode(self, texts: Sequence[str]) -> Ids:
        """See Engine."""
        parts: list[np.ndarray[tuple[int], np.dtype[np.uint32]]] = []
        lengths = np.zeros(len(texts), dtype=np.int64)
        for group in _groups(texts, self._cutter):
            encodings = self._backend.encode_batch_fast([piece for _, piece in group], add_special_tokens=False)
            for (number, _), encoding in zip(group, encodings, strict=True):
                ids = encoding.ids
                lengths[number] += len(ids)
                parts.append(np.array(ids, dtype=np.uint32))
        flat = np.concatenate(parts) if parts else np.empty(0, dtype=np.uint32)
        return Ids(flat, np.cumsum(lengths))


def _groups(texts: Sequence[str], cutter: Cutter) -> Iterator[list[tuple[int, str]]]:
    """Pieces with the number of their text, in order, in groups of a bounded number of characters."""
    group: list[tuple[int, str]] = []
    size = 0
    for number, text in enumerate(texts):
        for piece in cutter.pieces(text):
            group.append((number, piece))
            size += len(piece)
            if size >= _CHARACTERS_AT_ONCE:
                yield group
                group, size = [], 0
    if group:
        yield group
