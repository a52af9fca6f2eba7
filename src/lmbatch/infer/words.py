"""A word vocabulary as a tokenizer of transformers: text in, text out, the corpus's segmentation in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from transformers import BatchEncoding, PreTrainedTokenizerFast

from lmbatch.errors import TokenizerError
from lmbatch.infer.text import join_words
from lmbatch.tokens.segmentation import Segment, build_segmenter, read_segmentation


class WordTokenizer(PreTrainedTokenizerFast):
    """Segments every text as preprocessing did, by the folder's ``segmentation.json``, and joins words to text again.

    With plain transformers the folder's tokenizer takes and gives words with spaces between them.
    """

    segment: Segment

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The tokenizer of a folder. Raises TokenizerError if its segmenter is not installed in that very version."""
        segmentation = read_segmentation(folder)
        if segmentation is None:
            raise TokenizerError(f"{folder}: no segmentation.json, so this is no word vocabulary")
        tokenizer = cls.from_pretrained(folder, local_files_only=True)
        assert isinstance(tokenizer, cls)
        tokenizer.segment = build_segmenter(segmentation, tokenizer.all_special_tokens)
        return tokenizer

    def _encode_plus(self, text: Any, text_pair: Any = None, **options: Any) -> BatchEncoding:  # type: ignore[override]
        if not options.get("is_split_into_words"):
            text, text_pair = self._segmented(text), self._segmented(text_pair)
        return super()._encode_plus(text, text_pair, **options)

    def _segmented(self, text: Any) -> Any:
        if isinstance(text, str):
            return self.segment(text)
        return [self._segmented(part) for part in text] if isinstance(text, (list, tuple)) else text

    def _decode(  # type: ignore[override]
        self, token_ids: Any, skip_special_tokens: bool = False, **options: Any
    ) -> str:
        return join_words(super()._decode(token_ids, skip_special_tokens=skip_special_tokens, **options))
