"""Texts to ids, exactly as Hugging Face ``tokenizers`` gives them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmbatch.tokens.engines import Engine, HuggingFaceEngine, Ids, make_engine
from lmbatch.tokens.engines.adversarial import adversarial_texts
from lmbatch.tokens.engines.proof import (
    Difference,
    describe,
    encode_or_difference,
    first_difference,
    sample_of,
)
from lmbatch.tokens.memory import give_back_memory

if TYPE_CHECKING:
    from lmbatch.tokens.load import TextTokenizer

_log = logging.getLogger(__name__)
IdArray = np.ndarray[tuple[int], np.dtype[Any]]
NOTHING = Ids(np.empty(0, np.uint32), np.empty(0, np.int64))


class EngineDroppedError(Exception):
    """A fast engine gave wrong ids after it had already written some of the task: begin the task again.

    A signal to whoever does the task, not an error: the encoder has gone back to Hugging Face.
    """


class Encoder:
    """Encodes batches of texts and ends each with EOD. No special token is added but the EOD, none is recognised.

    A fast engine is used where there is one for the tokenizer, under these conditions:

    - It is compared with Hugging Face on a fixed adversarial set when the encoder is made, on texts of the first
      batch of every task, and of every 32nd batch after it. Which texts depends on the texts alone.
    - On any difference, or if it fails, it is not used again by this encoder, a warning names the text by its hash
      and place, and the task is done with Hugging Face from its beginning: one task's bytes come from one engine,
      the one that ``engine`` names for the receipt.
    - What is *not* promised: texts outside the samples are not compared. Tasks that this process or another
      finished earlier with the same engine keep their receipts, which name it.

    An engine that kills the process cannot be caught: set ``tokenizer.engine: huggingface`` then.
    """

    def __init__(self, tokenizer: TextTokenizer, engine: str = "auto", *, fast: Engine | None = None) -> None:
        """``fast`` is an engine to use instead of the one that ``engine`` chooses."""
        self._eod_id = tokenizer.eod_id
        self._segment = tokenizer.segmenter()
        self._reference = HuggingFaceEngine(tokenizer.backend)
        self._fast = fast if fast is not None else make_engine(tokenizer.backend, engine)
        self._prove(tokenizer)
        self.begin("")
        give_back_memory()

    @property
    def engine(self) -> str:
        """The name of the engine that encoded everything since ``begin``."""
        return self._fast.name if self._fast is not None else self._reference.name

    def begin(self, place: str) -> None:
        """A task begins; ``place`` names it in warnings."""
        self._place = place
        self._batch = 0
        self._documents = 0

    def encode(self, texts: Sequence[str]) -> list[IdArray]:
        """One array of ids per text, in order, each ended by EOD (never empty); uint32, or uint16 if all of them fit.

        Raises EngineDroppedError if earlier batches of the task must be encoded again.
        """
        ids = self.encode_ended(texts)
        return [ids.of(number) for number in range(len(texts))]

    def encode_ended(self, texts: Sequence[str]) -> Ids:
        """The same ids end to end, each text's with its EOD."""
        return self._with_eod(self.encode_plain(texts)) if texts else NOTHING

    def encode_plain(self, texts: Sequence[str]) -> Ids:
        """The same ids end to end, without any EOD; a text may have none. ``texts`` must not be empty."""
        if self._segment is not None:
            texts = [self._segment(text) for text in texts]
        ids = self._encode(texts)
        self._batch += 1
        self._documents += len(texts)
        return ids

    def _encode(self, texts: Sequence[str]) -> Ids:
        if self._fast is None:
            return self._reference.encode(texts)
        ids = encode_or_difference(self._fast, texts)
        if isinstance(ids, Ids):
            wrong = first_difference(self._reference, ids, texts, sample_of(texts, self._batch))
            if wrong is None:
                return ids
            ids = wrong
        self._drop(ids, texts)
        if self._batch:
            raise EngineDroppedError(self._place)
        return self._reference.encode(texts)

    def _prove(self, tokenizer: TextTokenizer) -> None:
        if self._fast is None:
            return
        added = tokenizer.backend.get_added_tokens_decoder().values()
        texts = adversarial_texts([token.content for token in added])
        ids = encode_or_difference(self._fast, texts)
        if isinstance(ids, Ids):
            wrong = first_difference(self._reference, ids, texts, range(len(texts)))
            if wrong is None:
                return
            ids = wrong
        self._place, self._documents = "the fixed set", 0
        self._drop(ids, texts)

    def _drop(self, wrong: Difference, texts: Sequence[str]) -> None:
        assert self._fast is not None
        first = self._documents
        where = f"documents {first} to {first + len(texts) - 1}"
        if wrong.number is not None:
            where = f"document {first + wrong.number} ({describe(texts[wrong.number])})"
        _log.warning(
            "the engine %s is not used any more: %s, in %s of %s; Hugging Face does its work from here on",
            self._fast.name,
            wrong.reason,
            where,
            self._place or "the texts",
        )
        self._fast = None

    def _with_eod(self, ids: Ids) -> Ids:
        largest = max(self._eod_id, int(ids.flat.max(initial=0)))
        narrow = largest <= np.iinfo(np.uint16).max
        flat = np.full(len(ids.flat) + len(ids.ends), self._eod_id, np.uint16 if narrow else np.uint32)
        start = 0
        for number, end in enumerate(ids.ends.tolist()):  # copies, which cost less than a mask over all tokens
            flat[start + number : end + number] = ids.flat[start:end]
            start = end
        return Ids(flat, ids.ends + np.arange(1, len(ids.ends) + 1))
