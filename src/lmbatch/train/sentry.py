"""Between the gradients and the update of a step: the guards' judgement, said aloud with the documents to look at."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from lmbatch.errors import LmbatchError, LossSpikeError, NonFiniteLossError
from lmbatch.loader import Step
from lmbatch.train.engine import Engine
from lmbatch.train.figures import Gradients
from lmbatch.train.guards import Finding, Guard
from lmbatch.train.records import Record

log = logging.getLogger(__name__)

_SHOWN = 10
_OUTCOME = {
    "warn": "its update is applied",
    "skip": "its update is left out",
    "stop": "nothing was changed or saved",
}
_LOOK = "look at these documents; lower optimizer.lr, lengthen schedule.warmup_steps or set optimizer.clip_norm"


@dataclass(frozen=True, slots=True)
class Sentry:
    """Judges a step on every process alike, from numbers that all have agreed on.

    ``origins`` names the documents that samples (by number) were made from; ``size`` is the global batch.
    """

    guard: Guard
    engine: Engine
    origins: Callable[[list[int]], list[str]]
    size: int

    @property
    def in_doubt(self) -> bool:
        """Was the update of the last step left out? Whether the batch or the weights are bad, the next one tells."""
        return self.guard.skipped > 0

    def note(self, row: Record) -> None:
        """A step is done; ``row`` is what metrics.jsonl gets."""
        self.guard.note(row)

    def examine(self, step: Step, number: int, gradients: Gradients) -> Finding | None:
        """What is wrong with step ``number`` (from 1), if anything; all processes call this together.

        Raises NonFiniteLossError or LossSpikeError if the policy is to stop, before anything was changed.
        """
        scaled = self.engine.tolerates_overflow
        found = self.guard.judge(gradients.loss, gradients.grad_norm, scaled=scaled)
        if found is None:
            return None
        found = self._without_hope(found)
        text = f"step {number}: {found.why}; {_OUTCOME[found.action]}\n  {self._suspects(step, found)}"
        if found.action == "stop":
            raise error_of(found, text)
        if self.engine.ranks.main:
            log.warning("%s", text)
        return found

    def check_weights(self, number: int) -> None:
        """Raises NonFiniteLossError rather than let weights that are not finite into a checkpoint (together)."""
        if not self.engine.weights_are_finite():
            raise NonFiniteLossError(
                f"after step {number} the weights are not finite; they are not saved",
                remedy="lower optimizer.lr or raise optimizer.eps; the run resumes from its last checkpoint",
            )

    def check_evaluation(self, number: int, loss: float) -> None:
        """Raises NonFiniteLossError for a validation loss that is not finite."""
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"after step {number} the validation loss is {loss}",
                remedy=f"lower optimizer.lr; remove the checkpoint of step {number} if there is one, so that the run "
                "resumes from the one before",
            )

    def _without_hope(self, found: Finding) -> Finding:
        """Leaving steps out cannot help a model that is not finite itself."""
        if found.kind == "nonfinite" and found.action == "skip" and not self.engine.weights_are_finite():
            return found.give_up("for the weights themselves are not finite")
        return found

    def _suspects(self, step: Step, found: Finding) -> str:
        bad = self.engine.suspects(step, found.most_loss)
        first, end = step.first_sample, step.first_sample + self.size
        needed = self.engine.ranks.main or found.action == "stop"
        origins = self.origins(bad or list(range(first, end))) if needed else []
        shown = "\n    ".join(origins[:_SHOWN])
        more = f"\n    and {len(origins) - _SHOWN} more" if len(origins) > _SHOWN else ""
        return (
            f"samples [{first}, {end}), of these suspect: {json.dumps(bad) if bad else 'all'}; their documents:\n"
            f"    {shown}{more}"
        )


def error_of(found: Finding, text: str) -> LmbatchError:
    """The error that ends the run, with what can be done about it."""
    key = "guards.on_spike" if found.kind == "spike" else "guards.nonfinite"
    way = f"or leave such updates out: --set {key}=skip --set run.accept_changes=true; "
    remedy = f"{_LOOK}; {'' if found.given_up else way}the run resumes from its last checkpoint"
    return (LossSpikeError if found.kind == "spike" else NonFiniteLossError)(text, remedy=remedy)
