"""Hugging Face ``tokenizers``: the engine that every other is measured against."""

from __future__ import annotations

from collections.abc import Sequence

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
        for group in self._cutter.groups(texts, _CHARACTERS_AT_ONCE):
            encodings = self._backend.encode_batch_fast([piece for _, piece in group], add_special_tokens=False)
            for (number, _), encoding in zip(group, encodings, strict=True):
                ids = encoding.ids
                lengths[number] += len(ids)
                parts.append(np.array(ids, dtype=np.uint32))
        flat = np.concatenate(parts) if parts else np.empty(0, dtype=np.uint32)
        return Ids(flat, np.cumsum(lengths))
