"""Documents' ids to examples: cut, counted, nothing lost without a name.

::

    texts ──Encoder──▶ ids end to end ──truncated · split_up · whole_chunks · ended──▶ Cut ──examples_of──▶ Examples

The cuts are pure functions over arrays; ``Chunker`` feeds them. Where documents are packed, ``ended`` leaves each
whole, and a Packer (packer.py) makes the examples of many of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lmbatch.config import ChunkingConfig
from lmbatch.store import TokenLedger
from lmbatch.tokens import Encoder
from lmbatch.tokens.encode import NOTHING
from lmbatch.tokens.engines import Ids

IdArray = np.ndarray[tuple[int], np.dtype[Any]]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """What texts were cut into: ``flat`` are the examples' tokens end to end, ``lengths`` the tokens of each.

    ``examples[i]`` and ``kept[i]`` are the number of examples of text i and the tokens of it that are in them, EODs
    not counted; ``eod`` is the number of EODs that were added.
    """

    flat: IdArray
    lengths: Counts
    examples: Counts
    kept: Counts
    eod: int


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """What became of several texts: the tokens of all examples end to end, and of text i the ``tokens[i]`` of its
    examples, EODs counted (0: it gives none), and the share of its own tokens that is in them, ``kept[i]`` of
    ``encoded[i]``.

    ``lengths`` are the tokens of each example and ``sequences[i]`` the examples of text i, None where documents are
    not cut.
    """

    flat: IdArray
    tokens: Counts
    kept: Counts
    encoded: Counts
    lengths: Counts | None = None
    sequences: Counts | None = None


def truncated(ids: Ids, length: int, eod_id: int) -> Cut:
    """The first ``length`` - 1 tokens of each text, ended by EOD; a text without tokens gives no example."""
    counts = _counts(ids)
    kept = np.minimum(counts, length - 1)
    there = kept > 0
    flat = ids.flat[_first_of_each(counts, kept)]
    # Several inserts at one place would be in the order given; no two are at one place, as each text keeps a token.
    flat = np.insert(flat, np.cumsum(kept)[there], np.asarray(eod_id, flat.dtype))
    return Cut(flat, kept[there] + 1, there.astype(np.int64), kept, int(there.sum()))


def split_up(ids: Ids, length: int, eod_id: int) -> Cut:
    """All tokens of each text in consecutive examples of ``length`` - 1 tokens, the last one shorter, each ended by
    EOD; a text without tokens gives none."""
    counts = _counts(ids)
    examples = -(-counts // (length - 1))
    kept = np.full(int(examples.sum()), length - 1, np.int64)
    lasts = np.cumsum(examples)[examples > 0] - 1
    kept[lasts] = (counts - (examples - 1) * (length - 1))[examples > 0]
    flat = np.insert(ids.flat, np.cumsum(kept), np.asarray(eod_id, ids.flat.dtype))
    return Cut(flat, kept + 1, examples, counts, len(kept))


def whole_chunks(ids: Ids, length: int) -> Cut:
    """The tokens of each text in chunks of exactly ``length``, without what is left at its end."""
    counts = _counts(ids)
    examples = counts // length
    kept = examples * length
    flat = ids.flat[_first_of_each(counts, kept)]
    return Cut(flat, np.full(int(examples.sum()), length, np.int64), examples, kept, 0)


def ended(ids: Ids, eod_id: int) -> Cut:
    """Each text whole, ended by EOD; a text without tokens gives no example."""
    longest = int(_counts(ids).max(initial=0))
    return truncated(ids, longest + 1, eod_id)


def totals(values: Counts, runs: Counts) -> Counts:
    """The sums of consecutive ``values``: of the first ``runs[0]`` of them, of the next ``runs[1]``, and so on."""
    sums = np.concatenate([[0], np.cumsum(values)])
    found: Counts = np.diff(sums[np.concatenate([[0], np.cumsum(runs)])])
    return found


def examples_of(cut: Cut, encoded: Counts) -> Examples:
    """The examples of each text; ``encoded[i]`` are the tokens that text i had."""
    return Examples(cut.flat, totals(cut.lengths, cut.examples), cut.kept, encoded, cut.lengths, cut.examples)


def _counts(ids: Ids) -> Counts:
    return np.diff(ids.ends, prepend=0).astype(np.int64, copy=False)


def _first_of_each(counts: Counts, kept: Counts) -> npt.NDArray[np.bool_]:
    """True for the first ``kept[i]`` of each run of ``counts[i]`` tokens."""
    runs = np.stack([kept, counts - kept], axis=1).ravel()
    return np.repeat(np.tile([True, False], len(counts)), runs)


def lines_of(text: str) -> list[str]:
    """The lines that are not blank, as ``str.splitlines`` finds them, without their line ends."""
    return [line for line in text.splitlines() if line.strip()]


class Chunker:
    """Encodes texts and cuts them as a config says; counts what it threw away."""

    def __init__(self, config: ChunkingConfig | None, encoder: Encoder, eod_id: int) -> None:
        self._config = config
        self._encoder = encoder
        self._eod_id = eod_id
        self._tokens = TokenLedger()

    @property
    def cuts(self) -> bool:
        """Does a document become examples, several or none?"""
        return self._config is not None

    @property
    def nothing_left(self) -> str:
        """Why a document that gives no example is dropped."""
        return "too_short" if self._config is not None and self._config.mode == "drop_short" else "no_tokens"

    def ledger(self) -> TokenLedger | None:
        """What became of all tokens so far; None where none can be lost."""
        return self._tokens if self.cuts else None

    def examples(self, texts: Sequence[str]) -> Examples:
        """The examples of all texts. Raises EngineDroppedError like the encoder."""
        if self._config is None:
            ids = self._encoder.encode_ended(texts)
            counts = _counts(ids)
            return Examples(ids.flat, counts, counts, counts)
        return self._cut(self._config, texts)

    def _cut(self, config: ChunkingConfig, texts: Sequence[str]) -> Examples:
        by_line = config.mode in ("lines", "split_lines")
        parts = [lines_of(text) for text in texts] if by_line else [[text] for text in texts]
        flat = [part for document in parts for part in document]
        ids = self._encoder.encode_plain(flat) if flat else NOTHING
        if config.mode == "drop_short":
            cut = whole_chunks(ids, config.most)
        elif config.packs:
            cut = ended(ids, self._eod_id)
        elif config.mode == "split_lines":
            cut = split_up(ids, config.most, self._eod_id)
        else:
            cut = truncated(ids, config.most, self._eod_id)
        runs = np.array([len(document) for document in parts], dtype=np.int64)
        encoded = totals(_counts(ids), runs)
        self._count(config, cut, int(encoded.sum()))
        return examples_of(replace(cut, examples=totals(cut.examples, runs), kept=totals(cut.kept, runs)), encoded)

    def _count(self, config: ChunkingConfig, cut: Cut, encoded: int) -> None:
        lost = encoded - int(cut.kept.sum())
        reason = "too_short" if config.mode == "drop_short" else "truncated"
        thrown = {reason: lost} if lost else {}
        self._tokens = self._tokens + TokenLedger(encoded=encoded, eod=cut.eod, thrown_away=thrown)
