"""Texts to ids, exactly as Hugging Face ``tokenizers`` gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmbatch.tokens.load import TextTokenizer


class Encoder:
    """Encodes batches of texts and ends each with EOD.

    ``engine`` is the name that goes into the receipt. No special token is added but the EOD, and none is recognised
    inside a text.
    """

    engine = "huggingface"

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._backend = tokenizer.backend
        self._eod_id = tokenizer.eod_id

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """One list of ids per text, in order, each ended by EOD (never empty)."""
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [[*encoding.ids, self._eod_id] for encoding in encodings]
