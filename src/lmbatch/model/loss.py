"""The losses of causal and of masked language modelling."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def causal_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats, summed over the tokens; a scalar in float32.

    ``logits`` is (B, T, V) in any floating dtype, ``labels`` is (B, T) int64 and already shifted: ``labels[b, t]`` is
    the token that ``logits[b, t]`` predicts. A label of -100 is left out.
    The sum, not the mean, so that the caller divides by the tokens of the global batch: the result is then the same
    however the batch is cut into micro-batches and processes.
    """
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")


def masked_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same for masked language modelling; ``labels`` are in place: ``labels[b, t]`` is hidden at ``logits[b, t]``.

    Only the rows that count are made float32: with 15 % of the tokens hidden that is a seventh of the memory.
    """
    chosen = labels != -100
    return F.cross_entropy(logits[chosen].float(), labels[chosen], reduction="sum")
