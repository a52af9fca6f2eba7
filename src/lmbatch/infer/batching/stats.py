"""What the queue has done so far, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

Outcome = Literal["done", "failed", "expired", "cancelled", "refused"]


class HasOutcome(Protocol):
    """A job, as far as counting goes."""

    outcome: Outcome | None


@dataclass(slots=True)
class QueueStats:
    """Totals since the start. ``row_steps / steps`` is the mean number of texts that one pass of the model moved on."""

    requests: Counter[Outcome] = field(default_factory=Counter)
    prompt_tokens: int = 0  # as the model read them: the prompt of several samples counts once
    new_tokens: int = 0
    steps: int = 0
    row_steps: int = 0

    def count(self, jobs: Iterable[HasOutcome]) -> None:
        """These are over."""
        self.requests.update(job.outcome for job in jobs if job.outcome is not None)

    def read(self, prompt: int, tokens: int) -> None:
        """A prompt was read, and gave ``tokens`` new ones."""
        self.prompt_tokens += prompt
        self.new_tokens += tokens

    def stepped(self, rows: int) -> None:
        """One pass of the model gave one token each to ``rows`` texts."""
        self.steps += 1
        self.row_steps += rows
        self.new_tokens += rows
