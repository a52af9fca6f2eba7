"""Several documents, or examples that hold several, on their way into a shard, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmbatch.shards.dtypes import TokenArray, tokens_that_fit
from lmbatch.shards.index import LONGEST_DOCUMENT

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class DocumentBatch:
    """Documents whose ids lie end to end in ``flat``: document i has ``tokens[i]`` of them, EOD included.

    ``lengths`` are the tokens of all their sequences in order, ``sequences[i]`` how many of them are document i's;
    both are None where each document is one. ``text_bytes[i]`` are the UTF-8 bytes of its text.
    """

    flat: np.ndarray[tuple[int], np.dtype[Any]]
    tokens: Counts
    text_bytes: Counts
    pieces: Sequence[int]
    positions: Sequence[int]
    ids: Sequence[str | None]
    lengths: Counts | None = None
    sequences: Counts | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, first: int, end: int) -> DocumentBatch:
        """Documents ``first`` up to but without ``end``; the ids are not copied."""
        start = int(self.tokens[:first].sum())
        here = slice(first, end)
        tokens = self.tokens[here]
        lengths = None
        if self.lengths is not None and self.sequences is not None:
            before = int(self.sequences[:first].sum())
            lengths = self.lengths[before : before + int(self.sequences[here].sum())]
        return DocumentBatch(
            self.flat[start : start + int(tokens.sum())],
            tokens,
            self.text_bytes[here],
            self.pieces[here],
            self.positions[here],
            self.ids[here],
            lengths,
            None if self.sequences is None else self.sequences[here],
        )

    def sound_tokens(self, dtype: str, examples: bool) -> TokenArray | None:
        """``flat`` as ``dtype`` if every document is fit to be written; None if one may not be."""
        tokens = self.tokens
        if tokens.min() < 1 or tokens.max() > LONGEST_DOCUMENT or tokens.sum() != len(self.flat):
            return None
        if not (self._sound_sequences() if examples else self.lengths is None):
            return None
        return tokens_that_fit(self.flat, dtype)

    def _sound_sequences(self) -> bool:
        if self.lengths is None or self.sequences is None or self.sequences.min() < 1:
            return False
        if self.sequences.sum() != len(self.lengths) or self.lengths.min() < 1:
            return False
        return np.array_equal(np.add.reduceat(self.lengths, np.cumsum(self.sequences) - self.sequences), self.tokens)


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """Examples of several documents, their ids end to end in ``flat``: example i has ``lengths[i]`` of them.

    They hold parts of ``documents`` documents, whole ones but for those that are longer than an example: ``tokens`` of
    each part in the order of ``flat``, and what identifies the document that it is of. No part is in two examples.
    ``text_bytes`` are those of all documents.
    """

    flat: np.ndarray[tuple[int], np.dtype[Any]]
    lengths: Counts
    tokens: Counts
    documents: int
    text_bytes: int
    pieces: Sequence[int]
    positions: Sequence[int]
    ids: Sequence[str | None]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def sound(self) -> bool:
        """Do parts fill examples, and examples all of ``flat``?"""
        ends, part_ends = np.cumsum(self.lengths), np.cumsum(self.tokens)
        return bool(
            min(self.lengths.min(initial=1), self.tokens.min(initial=1)) > 0
            and np.isin(ends, part_ends).all()
            and np.array_equal(ends[-1:], part_ends[-1:])
            and int(self.lengths.sum()) == len(self.flat)
        )
