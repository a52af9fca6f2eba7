"""What an engine is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

IdArray = np.ndarray[tuple[int], np.dtype[Any]]


class UnfitError(Exception):
    """This engine cannot stand in for this tokenizer. Never leaves the package."""


@dataclass(frozen=True, slots=True)
class Ids:
    """Ids of several texts, end to end: those of text i are ``flat[ends[i-1]:ends[i]]``.

    ``flat`` is uint32 (or uint16 where that is said), ``ends`` int64, both 1-D.
    """

    flat: IdArray
    ends: IdArray

    def of(self, number: int) -> IdArray:
        """The ids of one text, a view."""
        start = int(self.ends[number - 1]) if number else 0
        return self.flat[start : int(self.ends[number])]


class Engine(Protocol):
    """Encodes texts without adding any special token, and without recognising one inside a text."""

    name: str

    def encode(self, texts: Sequence[str]) -> Ids:
        """The ids of every text, in order. May raise anything at all: whoever calls it treats that as a difference."""
        ...
