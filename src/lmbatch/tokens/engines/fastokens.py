"""fastokens (PyPI, Apache-2.0): byte-level BPE in Rust."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from lmbatch.tokens.engines.protocol import Ids, UnfitError
from lmbatch.tokens.parts import parts_of


class FastokensEngine:
    """Byte-level BPE with any pre-tokenizer that fastokens knows; it refuses those it does not know."""

    name = "fastokens"

    def __init__(self, native: Any) -> None:
        self._native = native

    def encode(self, texts: Sequence[str]) -> Ids:
        """See Engine."""
        flat, offsets = self._native.encode_batch_flat(list(texts), add_special_tokens=False, split_special_tokens=True)
        ends = np.frombuffer(offsets, dtype="<u8")[1:].astype(np.int64)
        return Ids(np.frombuffer(flat, dtype="<u4"), ends)


def make_fastokens(backend: Tokenizer) -> FastokensEngine:
    """Raises ImportError if it is not installed, UnfitError if it does not know this kind of tokenizer."""
    import fastokens

    if parts_of(backend)["model"]["dropout"]:
        raise UnfitError("fastokens: merges are dropped at random, so there are no ids to agree on")
    try:
        return FastokensEngine(fastokens.Tokenizer.from_json_str(backend.to_str()))
    except ValueError as error:
        raise UnfitError(f"fastokens: {error}") from error
