"""BERT's WordPiece over Chinese text: ideographs and common punctuation by a table, everything else by another engine.

Where BertNormalizer puts spaces around every ideograph and BertPreTokenizer around every punctuation mark, such a
character is a word of its own, and its id does not depend on what stands beside it. White space ends a word and has no
id. What lies between these (letters, digits, other scripts, marks) is independent of them for the same reason, and is
given to the inner engine, most of it only once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from lmbatch.tokens.cutting import Cutter
from lmbatch.tokens.engines.huggingface import HuggingFaceEngine
from lmbatch.tokens.engines.nanotoken import make_nanotoken
from lmbatch.tokens.engines.protocol import Engine, IdArray, Ids, UnfitError

_ALONE = (
    *map(chr, range(0x4E00, 0xA000)),
    *"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~，。！？；：、“”‘’（）《》〈〉【】「」『』…—·",
)
_SPACES = " \t\n\r\u3000"
_NOTHING, _OTHER = -1, -2
_CODE_POINTS = 0x110000

_CHARACTERS_AT_ONCE = 1 << 18  # 40 bytes of working memory for each
_REMEMBERED = 1 << 16  # runs between ideographs, mostly numbers and names
_LONGEST_REMEMBERED = 32
_CHARACTERS_PER_RUN = 8  # text with more runs than that is not Chinese, and quicker with the inner engine


class TableEngine:
    """See the module. ``name`` tells the inner engine as well."""

    def __init__(self, inner: Engine, cutter: Cutter) -> None:
        self.name = f"table+{inner.name}"
        self._inner = inner
        self._cutter = cutter
        self._table = _make_table(inner)
        self._remembered: dict[str, IdArray] = {}

    def encode(self, texts: Sequence[str]) -> Ids:
        """See Engine."""
        parts = [np.empty(0, dtype=np.uint32)]
        lengths = np.zeros(len(texts), dtype=np.int64)
        for group in self._cutter.groups(texts, _CHARACTERS_AT_ONCE):
            ids = self._encode([piece for _, piece in group])
            parts.append(ids.flat)
            np.add.at(lengths, [number for number, _ in group], np.diff(ids.ends, prepend=0))
        return Ids(np.concatenate(parts), np.cumsum(lengths))

    def _encode(self, pieces: list[str]) -> Ids:
        # A line end between two pieces keeps their words apart and has no id, so all of them are one array.
        text = "\n".join(pieces)
        found = self._table[np.frombuffer(text.encode("utf-32-le"), dtype="<u4")]
        edges = np.flatnonzero(np.diff((found == _OTHER).view(np.int8), prepend=0, append=0))
        starts, ends = edges[0::2], edges[1::2]
        if len(starts) * _CHARACTERS_PER_RUN > len(text) and not isinstance(self._inner, HuggingFaceEngine):
            return self._inner.encode(pieces)
        runs = self._ids_of([text[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)])
        flat, reached = _assemble(found, starts, runs)
        lasts = np.cumsum([len(piece) + 1 for piece in pieces]) - 1
        return Ids(flat, np.concatenate(([0], reached))[lasts])

    def _ids_of(self, runs: list[str]) -> list[IdArray]:
        if len(self._remembered) > _REMEMBERED:
            self._remembered.clear()
        known = self._remembered
        new = [run for run in dict.fromkeys(runs) if run not in known]
        ids = self._inner.encode(new)
        fresh = {run: ids.of(number).copy() for number, run in enumerate(new)}
        known.update((run, found) for run, found in fresh.items() if len(run) <= _LONGEST_REMEMBERED)
        return [known[run] if run in known else fresh[run] for run in runs]


def _assemble(found: IdArray, starts: IdArray, runs: list[IdArray]) -> tuple[IdArray, IdArray]:
    """The ids in order, and how many there are up to each character and with it (a run's count at its start)."""
    single = found >= 0
    counts = single.astype(np.int64)
    lengths = np.fromiter(map(len, runs), dtype=np.int64, count=len(runs))
    counts[starts] = lengths
    reached = np.cumsum(counts)
    flat = np.empty(int(reached[-1]) if len(reached) else 0, dtype=np.uint32)
    flat[reached[single] - 1] = found[single]
    if runs:
        before = np.cumsum(lengths) - lengths
        places = np.repeat(reached[starts] - lengths - before, lengths)
        flat[places + np.arange(len(places))] = np.concatenate(runs)
    return flat, reached


def _make_table(inner: Engine) -> IdArray:
    """The id of each character that is a word by itself; tried between letters as well, where it must be the same."""
    table = np.full(_CODE_POINTS, _OTHER, dtype=np.int32)
    table[[ord(space) for space in _SPACES]] = _NOTHING
    alone = inner.encode(_ALONE)
    between = inner.encode([f"a{character}a" for character in _ALONE])
    letter = inner.encode(["a"]).flat
    for number, character in enumerate(_ALONE):
        ids = alone.of(number)
        if len(ids) == 1 and np.array_equal(between.of(number), np.concatenate((letter, ids, letter))):
            table[ord(character)] = ids[0]
    return table


def make_table(backend: Tokenizer) -> TableEngine:
    """Over nanotoken, or over Hugging Face where it is not installed. Raises UnfitError if ideographs are no words."""
    cutter = Cutter.of(backend)
    if not cutter.splits_ideographs:
        raise UnfitError("table: the tokenizer does not split text at every ideograph")
    try:
        return TableEngine(make_nanotoken(backend), cutter)
    except (ImportError, UnfitError):
        return TableEngine(HuggingFaceEngine(backend), cutter)
