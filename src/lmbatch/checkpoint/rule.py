"""Which checkpoints stay: a pure function of what is known about them.

A checkpoint stays for any of these reasons, and goes without one:

newest   one of the newest ``newest`` valid ones, or newer than the oldest of these
every    a valid one whose step is a multiple of ``every``
best     one of the ``best`` valid ones with the lowest validation loss, as far as it is known by now
pinned   somebody said so

The step of the newest checkpoint is evaluated after it was saved. That is no hurry: it is among the newest until at
least one more was saved, and by then its loss is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lmbatch.errors import CheckpointError

LEAST = 2  # should one turn out damaged


@dataclass(frozen=True, slots=True)
class KeepRule:
    """How many of the newest and of the best, and every how many steps one for ever; 0 of the latter two: none."""

    newest: int = LEAST
    every: int = 0
    best: int = 0

    def __post_init__(self) -> None:
        if self.newest < LEAST:
            raise CheckpointError(
                f"keep = {self.newest}: at least two checkpoints are kept, should one turn out damaged"
            )
        if self.every < 0 or self.best < 0:
            raise CheckpointError(f"keep every {self.every} steps and the best {self.best}: neither can be negative")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one checkpoint. ``loss`` is that of an evaluation after its step, in nats per token."""

    step: int
    valid: bool
    loss: float | None = None
    pinned: bool = False


def reasons_to_keep(found: Iterable[Evidence], rule: KeepRule) -> dict[int, tuple[str, ...]]:
    """For every step why it stays; () for one that goes. Never do fewer than two valid ones stay of two or more."""
    known = sorted(found, key=lambda one: one.step)
    valid = [one for one in known if one.valid]
    oldest_kept = valid[-rule.newest].step if len(valid) >= rule.newest else -1
    ranks = {one.step: rank for rank, one in enumerate(_best_first(valid)[: rule.best], start=1)}
    return {one.step: tuple(_reasons(one, rule, oldest_kept, ranks.get(one.step))) for one in known}


def _best_first(valid: list[Evidence]) -> list[Evidence]:
    """Of two alike, the newer one has seen more."""
    judged = [(one.loss, -one.step, one) for one in valid if one.loss is not None and math.isfinite(one.loss)]
    return [one for _, _, one in sorted(judged, key=lambda item: item[:2])]


def _reasons(one: Evidence, rule: KeepRule, oldest_kept: int, rank: int | None) -> Iterable[str]:
    if one.step >= oldest_kept:
        yield "newest" if one.valid else "newer than the oldest that is kept"
    if one.valid and rule.every and one.step and one.step % rule.every == 0:
        yield f"every {rule.every}"
    if rank is not None:
        yield f"best {rank}"
    if one.pinned:
        yield "pinned"
