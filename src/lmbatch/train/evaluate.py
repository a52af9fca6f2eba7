"""Loss on the validation split."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from lmbatch.loader import EvaluationBatches
from lmbatch.store import Manifest
from lmbatch.train.engine import Engine
from lmbatch.train.records import Record

_LARGEST_EXPONENT = 700.0  # e^709.8 is the end of float64


@dataclass(frozen=True, slots=True)
class Validation:
    """This process's share of the validation batches, the same ones every time.

    ``rounds`` is the largest number of batches that any process has. ``whole_text``: is each token predicted, so that
    the loss says how many bits the text takes? Hidden tokens alone say nothing of the kind.
    """

    manifest: Manifest
    batches: EvaluationBatches
    rounds: int
    whole_text: bool = True

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text that a token of this split stands for, on average."""
        text_bytes = sum(shard.text_bytes for shard in self.manifest.of("validation"))
        return text_bytes / self.manifest.tokens("validation")


def evaluate(validation: Validation, engine: Engine, *, check: Callable[[], None]) -> Record:
    """Mean loss (nats per predicted token), perplexity and bits per byte (None for a masked objective), the same on
    every process.

    ``check`` is called before each round of batches, on every process, and may raise to break off.
    """
    start = time.monotonic()
    batches = iter(validation.batches)
    loss, tokens = 0.0, 0
    for _ in range(validation.rounds):
        check()
        batch = next(batches, None)
        loss += engine.summed_loss(batch)
        tokens += batch.targets if batch is not None else 0
    loss, counted = engine.ranks.total([loss, float(tokens)])
    mean = loss / max(1.0, counted)
    bits = mean / math.log(2) / validation.bytes_per_token if validation.whole_text else None
    return {
        "loss": mean,
        "perplexity": math.exp(min(mean, _LARGEST_EXPONENT)),
        "bits_per_byte": bits,
        "tokens": int(counted),
        "seconds": time.monotonic() - start,
    }
