"""nanotoken (PyPI, MIT): WordPiece in Rust."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from lmbatch.tokens.cutting import Cutter
from lmbatch.tokens.engines.protocol import Ids, UnfitError

# Its default lets two caches grow to 130 MiB each; Chinese text, which has no spaces to key them by, gains nothing.
_CACHE_ENTRIES = 1 << 16


class NanotokenEngine:
    """WordPiece with any normaliser that nanotoken knows; it refuses those it does not know."""

    name = "nanotoken"

    def __init__(self, native: Any, cutter: Cutter) -> None:
        self._native = native
        self._cutter = cutter

    def encode(self, texts: Sequence[str]) -> Ids:
        """See Engine."""
        # One text of 16 MiB costs it 200 MB; in pieces it costs next to nothing.
        pieces = [list(self._cutter.pieces(text)) for text in texts]
        flat, offsets = self._native.encode_batch(list(chain(*pieces)), add_special_tokens=False, parallel=False)
        return Ids(
            flat, np.asarray(offsets, dtype=np.int64)[np.cumsum([len(parts) for parts in pieces], dtype=np.int64)]
        )


def make_nanotoken(backend: Tokenizer) -> NanotokenEngine:
    """Raises ImportError if it is not installed, UnfitError if it does not know this kind of tokenizer."""
    import nanotoken

    value = json.loads(backend.to_str())
    if any(not token["special"] for token in value["added_tokens"]):
        raise UnfitError("nanotoken: the tokenizer has added tokens that are not special")
    # It has no switch to leave special tokens inside a text alone; without them in its table it finds none.
    value["added_tokens"] = []
    value["post_processor"] = None
    nanotoken.set_cache_entries(_CACHE_ENTRIES)
    try:
        native = nanotoken.WordPieceTokenizer.from_json(json.dumps(value, ensure_ascii=False))
    except ValueError as error:
        raise UnfitError(f"nanotoken: {error}") from error
    return NanotokenEngine(native, Cutter.of(backend))
