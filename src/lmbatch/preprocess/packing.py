"""Best-fit-decreasing: which parts of documents share an example. Pure.

::

    tokens of documents ──cut──▶ parts of at most L ──best_fit──▶ Packing: parts in the order of their examples

After "Fewer Truncations Improve Language Modeling" (Ding et al., 2024, arXiv:2404.10830): a document longer than L is
cut in parts of L tokens and a rest, and parts are placed, the longest first, each in the example that has the least
room left for it. The paper finds that one in a segment tree; here examples with the same room are one entry, and the
bits of a number tell which entries there are, so that finding one is a shift of a number of L bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What documents were cut into, in their order: ``sizes`` in tokens, and the number of each one's document."""

    sizes: Counts
    documents: Counts


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """``order`` are the numbers of the parts, example after example; example i has the next ``counts[i]`` of them.

    Examples are in the order of their first parts, and so are the parts in each.
    """

    order: Counts
    counts: Counts


def cut(tokens: Counts, capacity: int) -> Parts:
    """Documents of ``tokens`` each (one at least) in parts of ``capacity`` and what is left of each."""
    pieces = -(-tokens // capacity)
    sizes = np.full(int(pieces.sum()), capacity, np.int64)
    sizes[np.cumsum(pieces) - 1] = tokens - (pieces - 1) * capacity
    return Parts(sizes, np.repeat(np.arange(len(tokens)), pieces))


def best_fit(sizes: Counts, capacity: int) -> Packing:
    """Parts of ``sizes`` (1 to ``capacity`` tokens) in examples of ``capacity``. Equal sizes go in their own order."""
    room = _Room()
    example_of = np.empty(len(sizes), np.int64)
    longest_first = np.argsort(-sizes, kind="stable")
    examples = 0
    for part, size in zip(longest_first.tolist(), sizes[longest_first].tolist(), strict=True):
        example, left = room.take(size) or (examples, capacity)
        examples += example == examples
        example_of[part] = example
        room.put(example, left - size)
    return _in_order(example_of)


def _in_order(example_of: Counts) -> Packing:
    _, firsts = np.unique(example_of, return_index=True)
    place = np.empty(len(firsts), np.int64)
    place[np.argsort(firsts)] = np.arange(len(firsts))
    places = place[example_of]
    return Packing(np.argsort(places, kind="stable"), np.bincount(places).astype(np.int64))


class _Room:
    """The examples that are not full, by the tokens that still go into them."""

    def __init__(self) -> None:
        self._examples: dict[int, list[int]] = {}
        self._there = 0  # bit n: some example has room for n tokens

    def take(self, size: int) -> tuple[int, int] | None:
        """The example with the least room for ``size`` tokens and that room; of several the one last put; or None."""
        enough = self._there >> size
        if not enough:
            return None
        left = size + (enough & -enough).bit_length() - 1
        examples = self._examples[left]
        example = examples.pop()
        if not examples:
            self._there ^= 1 << left
        return example, left

    def put(self, example: int, left: int) -> None:
        """An example that has room for ``left`` tokens; one without room is forgotten."""
        if left:
            self._examples.setdefault(left, []).append(example)
            self._there |= 1 << left
