"""The norm of all gradients, and clipping by it: one way for every engine.

The sum of squares is taken in float64. In float32 it depends on how the gradients are cut into pieces (torch's norm on
a CPU is off by 1e-4 for ten million values), and the losses of two engines would drift apart once clipping sets in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

_SMALL = 1e-6  # as torch.nn.utils.clip_grad_norm_ has it


def sum_of_squares(tensors: Sequence[torch.Tensor]) -> float:
    """Of all elements, in float64."""
    norms = [torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in tensors if tensor.numel()]
    return float(torch.stack(norms).square().sum()) if norms else 0.0


def clip(tensors: Sequence[torch.Tensor], norm: float, limit: float | None) -> None:
    """Scale the gradients in place so that their common norm, which is ``norm`` now, does not exceed ``limit``."""
    if limit is not None and limit / (norm + _SMALL) < 1.0:
        for tensor in tensors:
            tensor.mul_(limit / (norm + _SMALL))
