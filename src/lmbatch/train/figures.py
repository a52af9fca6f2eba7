"""What a step gave, on the device first and then on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lmbatch.loader import Batch, batches_digest, digest_text
from lmbatch.train.transfer import Arriving

_PARTS = 4  # a 64-bit sum travels as four 16-bit parts, which float64 adds exactly


@dataclass(frozen=True, slots=True)
class Gradients:
    """What a forward and backward pass over the global batch gave; the same on every process.

    ``loss`` is nats per predicted token; ``tokens`` are the tokens that the model read, none of them padding (a causal
    one predicts each of them, a masked one a share); ``data`` identifies the batch; ``stop`` tells whether any process
    was asked to stop.
    """

    loss: float
    tokens: int
    grad_norm: float
    data: str
    stop: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """The same before anybody has looked: ``sums`` over the processes of the loss, the norm, the requests to stop and
    the parts of the digest (``said``), for ``targets`` predicted tokens."""

    sums: Arriving
    targets: int
    tokens: int

    def fetch(self) -> Gradients:
        """Wait for them."""
        loss, norm, stops, *parts = self.sums.numbers()
        whole = sum(int(value) << (16 * part) for part, value in enumerate(parts)) % 2**64
        return Gradients(loss / self.targets, self.tokens, norm, digest_text(whole), stops > 0)


def said(batches: Sequence[Batch], *, stop: bool) -> torch.Tensor:
    """What a process knows of its step beforehand, as float64: is a stop asked for, and the parts of the digest."""
    digest = batches_digest(batches)
    parts = [float(digest >> (16 * part) & 0xFFFF) for part in range(_PARTS)]
    return torch.tensor([float(stop), *parts], dtype=torch.float64)
