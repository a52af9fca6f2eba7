"""Filters by what can be counted in a text: length, Chinese characters, symbols, repetition.

The limits of repetition follow Rae et al. 2021 (Gopher), appendix A.1.1, with runs of 4 characters in place of runs of
words, which Chinese text does not set apart.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

NGRAM = 4
_OTHER, _SPACE, _HAN, _SYMBOL = range(4)
_COMMON = frozenset("，。、；：？！“”‘’（）《》〈〉「」『』【】〔〕—…·～,.;:?!'\"()[]-/%％")
_HAN_RANGES = ((0x3007, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))
_ASSIGNED = 0x32400  # behind the last Han character: only tags, variation selectors and private use
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses nothing


class Measured:
    """A text and what has been counted in it so far; the filters share one."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def chinese_share(self) -> float:
        """Han characters among those that are no white space."""
        return float(self._classes[_HAN]) / self._visible

    @cached_property
    def symbol_share(self) -> float:
        """Symbols among those that are no white space."""
        return float(self._classes[_SYMBOL]) / self._visible

    @cached_property
    def duplicate_line_share(self) -> float:
        """Lines that are equal to an earlier one, among all that are not blank."""
        lines = [line for line in map(str.strip, self.text.split("\n")) if line]
        return 1 - len(set(lines)) / len(lines) if lines else 0.0

    @cached_property
    def ngram_share(self) -> float:
        """Characters that lie in the most frequent run of 4, among those that are no white space; at most 1."""
        codes = self._codes[self._kinds != _SPACE].astype(np.uint64)
        if len(codes) < NGRAM:
            return 0.0
        runs = len(codes) - NGRAM + 1
        keys = codes[:runs].copy()
        for offset in range(1, NGRAM):
            keys *= _MIX
            keys += codes[offset : offset + runs]
        keys.sort()
        edges = np.flatnonzero(keys[1:] != keys[:-1])
        most = int(np.diff(edges, prepend=-1, append=runs - 1).max())
        return min(1.0, most * NGRAM / len(codes)) if most > 1 else 0.0

    @cached_property
    def _codes(self) -> NDArray[np.uint32]:
        return np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), dtype="<u4")

    @cached_property
    def _kinds(self) -> NDArray[np.uint8]:
        return _kind_table()[np.minimum(self._codes, _ASSIGNED)]

    @cached_property
    def _classes(self) -> NDArray[np.intp]:
        return np.bincount(self._kinds, minlength=4)

    @property
    def _visible(self) -> int:
        return max(1, len(self.text) - int(self._classes[_SPACE]))


@lru_cache(maxsize=1)
def _kind_table() -> NDArray[np.uint8]:
    kinds = np.fromiter(map(_kind, range(_ASSIGNED + 1)), dtype=np.uint8)
    for first, last in _HAN_RANGES:
        kinds[first : last + 1] = _HAN
    return kinds


def _kind(code: int) -> int:
    character = chr(code)
    if character.isspace():
        return _SPACE
    if character in _COMMON or unicodedata.category(character)[0] in "LNM":
        return _OTHER
    return _SYMBOL


Filter = Callable[[Measured], str | None]


def shorter_than(limit: int) -> Filter:
    """Complains of fewer characters than ``limit``."""
    return lambda found: f"{len(found.text)} characters" if len(found.text) < limit else None


def longer_than(limit: int) -> Filter:
    """Complains of more characters than ``limit``."""
    return lambda found: f"{len(found.text)} characters" if len(found.text) > limit else None


def below(name: str) -> Callable[[float], Filter]:
    """Filters that complain of a measure less than their limit."""
    return lambda limit: lambda found: _share(getattr(found, name), getattr(found, name) < limit)


def above(name: str) -> Callable[[float], Filter]:
    """Filters that complain of a measure greater than their limit."""
    return lambda limit: lambda found: _share(getattr(found, name), getattr(found, name) > limit)


def _share(value: float, complain: bool) -> str | None:
    return f"a share of {value:.3f}" if complain else None
