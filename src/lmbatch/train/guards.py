"""Which steps cannot be right: not finite, or far above what the last steps had. Pure; imports no torch.

::

    loss, gradient norm (agreed) ──▶ judge ──▶ nothing: apply │ warn: apply │ skip: leave out │ stop: raise
                                       ▲
    rows of metrics.jsonl ──▶ note ────┘   losses and norms of the last applied steps; steps left out in a row

What is known of earlier steps comes from their rows alone, in the running process as well as after a resume, so both
judge alike. Where the rows are lost with a disk, a checkpoint from the store has the window itself. A row of a step
that was not applied tells nothing of what is usual: it stays out of the window.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

from lmbatch.config import GuardsConfig
from lmbatch.train.records import Record


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a step and what the policy makes of it.

    ``most_loss``, in nats per token, is what a micro-batch may have without being suspect. ``given_up``: the policy was
    to leave the update out, but that does not help.
    """

    kind: Literal["nonfinite", "spike"]
    action: Literal["warn", "skip", "stop"]
    why: str
    most_loss: float = math.inf
    given_up: bool = False

    def give_up(self, because: str) -> Finding:
        """The same, as a reason to stop."""
        return replace(self, action="stop", why=f"{self.why}, {because}", given_up=True)


class Guard:
    """The policy, and what it remembers: the last applied steps, and how many in a row were left out."""

    def __init__(self, config: GuardsConfig) -> None:
        self._config = config
        self._losses: deque[float] = deque(maxlen=config.spike_window)
        self._norms: deque[float] = deque(maxlen=config.spike_window)
        self.skipped = 0

    @classmethod
    def after(cls, config: GuardsConfig, rows: Iterable[Record]) -> Guard:
        """As it stood after the steps of these rows of metrics.jsonl."""
        guard = cls(config)
        for row in rows:
            guard.note(row)
        return guard

    @classmethod
    def restored(cls, config: GuardsConfig, state: Mapping[str, Any]) -> Guard:
        """As it was when it gave ``state``."""
        guard = cls(config)
        guard._losses.extend(state["losses"])
        guard._norms.extend(state["norms"])
        guard.skipped = int(state["skipped"])
        return guard

    def state(self) -> dict[str, Any]:
        """All that it remembers, as plain values."""
        return {"losses": list(self._losses), "norms": list(self._norms), "skipped": self.skipped}

    def note(self, row: Record) -> None:
        """A step is done. One with neither a norm nor a reason was left out by the loss scaler of fp16: no news."""
        if row.get("skipped") is not None:
            self.skipped += 1
        elif row["grad_norm"] is not None:
            self.skipped = 0
            self._losses.append(row["loss"])
            self._norms.append(row["grad_norm"])

    def judge(self, loss: float, norm: float, *, scaled: bool = False) -> Finding | None:
        """What is wrong with a step before its update. ``scaled``: a loss scaler will deal with an infinite norm."""
        if scaled and math.isfinite(loss) and not math.isfinite(norm):
            return None
        found = self._nonfinite(loss, norm) or self._loss_spike(loss) or self._norm_spike(norm)
        if found is not None and found.action == "skip" and self.skipped >= self._config.max_skipped:
            return found.give_up(
                f"and the updates of {self.skipped} steps before it were left out (guards.max_skipped)"
            )
        return found

    def _nonfinite(self, loss: float, norm: float) -> Finding | None:
        if not math.isfinite(loss):
            return Finding("nonfinite", self._config.nonfinite, f"the loss is {loss}")
        if not math.isfinite(norm):
            why = f"the gradient norm is {norm} (the loss is {loss:.4f})"
            return Finding("nonfinite", self._config.nonfinite, why)
        return None

    def _loss_spike(self, loss: float) -> Finding | None:
        most = self._limit(self._losses, self._config.spike_factor)
        return None if loss <= most else self._spike(f"the loss is {loss:.4f}", most, self._losses, most_loss=most)

    def _norm_spike(self, norm: float) -> Finding | None:
        most = self._limit(self._norms, self._config.grad_spike_factor)
        return None if norm <= most else self._spike(f"the gradient norm is {norm:.4f}", most, self._norms)

    def _limit(self, window: deque[float], factor: float | None) -> float:
        if factor is None or len(window) < self._config.spike_window:
            return math.inf
        return factor * median(window)

    def _spike(self, what: str, most: float, window: deque[float], *, most_loss: float = math.inf) -> Finding:
        why = f"{what}, above {most:.4f}: the median of the last {len(window)} steps is {median(window):.4f}"
        return Finding("spike", self._config.on_spike, why, most_loss)
