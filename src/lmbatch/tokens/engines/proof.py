"""Does an engine give the ids that Hugging Face gives? Asked on the fixed set, and again on samples of real text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmbatch.tokens.engines.protocol import Engine, Ids

# What is not an answer about a text: to stop, or to be out of memory.
_NOT_A_DIFFERENCE = (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError)

# Comparing costs what Hugging Face costs, so it is rationed. Characters of text; batches are about a mebibyte.
FIRST_BATCH_CHARACTERS = 1 << 16
LATER_BATCH_CHARACTERS = 1 << 14
EVERY_BATCHES = 32


@dataclass(frozen=True, slots=True)
class Difference:
    """Where an engine was wrong: the number of the text in what it was given, None if it was no single text."""

    number: int | None
    reason: str


def encode_or_difference(engine: Engine, texts: Sequence[str]) -> Ids | Difference:
    """The ids, or what came instead: an engine that raises (a Rust panic is a BaseException) has given no answer."""
    try:
        ids = engine.encode(texts)
    except _NOT_A_DIFFERENCE:
        raise
    except BaseException as error:  # pyo3's PanicException is not an Exception
        return Difference(None, f"it failed: {type(error).__name__}: {error}"[:300])
    ends = ids.ends
    if len(ends) != len(texts) or (len(texts) and int(ends[-1]) != len(ids.flat)) or np.any(np.diff(ends) < 0):
        return Difference(None, f"it gave {len(ends)} results for {len(texts)} texts, or lost ids between them")
    return ids


def first_difference(reference: Engine, ids: Ids, texts: Sequence[str], numbers: Sequence[int]) -> Difference | None:
    """Compare the ids of the texts named by ``numbers`` with the reference's."""
    expected = reference.encode([texts[number] for number in numbers])
    for place, number in enumerate(numbers):
        if not np.array_equal(expected.of(place), ids.of(number)):
            return Difference(number, "its ids are not those of Hugging Face")
    return None


def sample_of(texts: Sequence[str], batch: int) -> list[int]:
    """Which texts of a task's batch number ``batch`` are compared: a pure function of the texts' lengths.

    As many texts as fit the ration, spread over the batch; the shortest one if none fits; none in most later batches.
    """
    if not texts or batch % EVERY_BATCHES:
        return []
    room = LATER_BATCH_CHARACTERS if batch else FIRST_BATCH_CHARACTERS
    total = sum(map(len, texts))
    step = max(1, total // room)
    chosen = []
    for number in range(0, len(texts), step):
        if len(texts[number]) <= room:
            chosen.append(number)
            room -= len(texts[number])
    return chosen or [min(range(len(texts)), key=lambda number: len(texts[number]))]


def describe(text: str) -> str:
    """A text in a log: its hash and length, never its content."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"sha256:{digest[:16]}, {len(text)} characters"
