"""The loss of causal language modelling."""

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
