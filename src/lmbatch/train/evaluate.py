"""Loss on the validation split."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lmbatch.loader import TokenData
from lmbatch.train.engine import Engine
from lmbatch.train.records import Record

_LARGEST_EXPONENT = 700.0  # e^709.8 is the end of float64


@dataclass(frozen=True, slots=True)
class Validation:
    """The validation samples of a run: the first of the split's own fixed order, the same ones every time."""

    data: TokenData
    samples: int

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text that a token of this split stands for, on average."""
        manifest = self.data.manifest
        return sum(shard.text_bytes for shard in manifest.of("validation")) / manifest.tokens("validation")


def evaluate(validation: Validation, engine: Engine, *, micro: int, check: Callable[[], None]) -> Record:
    """Mean loss (nats per token), perplexity and bits per byte, the same on every process.

    The samples are spread over the processes ``micro`` at a time; ``check`` is called between two such rounds, on every
    process, and may raise to break off.
    """
    start = time.monotonic()
    world = engine.ranks.world
    loss, tokens = 0.0, 0
    for first in range(0, validation.samples, micro * world):
        check()
        mine = first + engine.ranks.rank * micro
        batch = _read(validation, range(mine, min(mine + micro, validation.samples)))
        if len(batch):
            loss += engine.summed_loss(batch)
            tokens += batch.shape[0] * (batch.shape[1] - 1)
    loss, counted = engine.ranks.total([loss, float(tokens)])
    mean = loss / counted
    return {
        "loss": mean,
        "perplexity": math.exp(min(mean, _LARGEST_EXPONENT)),
        "bits_per_byte": mean / math.log(2) / validation.bytes_per_token,
        "tokens": int(counted),
        "seconds": time.monotonic() - start,
    }


def _read(validation: Validation, samples: range) -> np.ndarray:
    rows = [validation.data.read(sample) for sample in samples]
    return np.stack(rows).astype(np.int64) if rows else np.empty((0, 0), dtype=np.int64)
