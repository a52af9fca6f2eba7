"""Shards laid end to end: from a token's place in the stream to its place in a shard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Span:
    """``length`` tokens from token ``start`` of shard number ``shard`` of the split."""

    shard: int
    start: int
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """Where samples begin, as arrays of one length: shard, first token in it, and whether the whole sample is there."""

    shard: Ints
    start: Ints
    whole: npt.NDArray[np.bool_]

    def __getitem__(self, run: slice) -> Located:
        return Located(self.shard[run], self.start[run], self.whole[run])

    @staticmethod
    def joined(parts: list[Located]) -> Located:
        """The parts one after the other."""
        arrays: list[npt.NDArray[Any]] = [
            np.concatenate(columns) for columns in zip(*((p.shard, p.start, p.whole) for p in parts), strict=True)
        ]
        return Located(*arrays)


@dataclass(frozen=True, slots=True, eq=False)
class TokenStream:
    """``shards`` in the order of reading; ``offsets`` has one entry more: where each begins, and the end of all."""

    shards: Ints
    offsets: Ints

    @classmethod
    def of(cls, shards: Ints, shard_tokens: Ints) -> TokenStream:
        """``shard_tokens[i]`` is the number of tokens of shard i."""
        return cls(shards, np.concatenate([[0], np.cumsum(shard_tokens[shards])]))

    def spans(self, start: int, length: int) -> tuple[Span, ...]:
        """``length`` tokens from ``start`` on; shards without tokens give no span."""
        spans = []
        place = self._places(start)
        while length:
            inside = start - int(self.offsets[place])
            here = min(length, int(self.offsets[place + 1]) - start)
            if here:
                spans.append(Span(int(self.shards[place]), inside, here))
            start, length, place = start + here, length - here, place + 1
        return tuple(spans)

    def locate(self, starts: Ints, length: int) -> Located:
        """The first span of each run of ``length`` tokens, for many at once."""
        places = self._places(starts)
        whole = starts + length <= self.offsets[places + 1]
        return Located(self.shards[places], starts - self.offsets[places], whole)

    def _places(self, starts: Any) -> Any:
        # "right": of several shards that begin at the same token, only the last one has any.
        return np.searchsorted(self.offsets, starts, side="right") - 1
