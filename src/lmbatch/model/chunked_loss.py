"""Cross-entropy of an output projection without the logits of the whole batch.

::

    hidden (N, H) ──▶ C rows ──▶ logits (C, V) ──▶ loss, gradient of the logits ──▶ gradients of hidden, weight, bias
                        ▲                                                                   │
                        └──────────────────── the next C rows ◀─────────────────────────────┘

Gradients are made in the forward pass, where the logits are at hand, and only scaled in the backward pass, as Liger
Kernel has it (arXiv:2410.10989, section 3.2): nothing is computed twice, and the projection's weight, which ZeRO stage
3 puts together for the forward pass, is not needed again.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable


def chunked_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor, chunk: int, size: int
) -> torch.Tensor:
    """Cross-entropy in nats, summed over the tokens; a scalar in float32.

    ``hidden`` (N, H), ``weight`` (V, H), ``bias`` (V) or None, ``labels`` (N) int64, none of them -100. Rows of the
    weight from ``size`` on are padding (padding.py), which no token can be. Matrices are multiplied in autocast's dtype
    where that is on; losses, softmax and the sums of the gradients are in float32.
    """
    if not torch.is_grad_enabled():
        return _Pass(hidden, weight, bias, labels, chunk, size, grad=False).loss
    loss: torch.Tensor = _ChunkedCrossEntropy.apply(hidden, weight, bias, labels, chunk, size)  # type: ignore[no-untyped-call]
    return loss


class _Pass:
    """One walk over the rows. After it ``loss`` is there, and with ``grad`` the gradients of its inputs."""

    def __init__(
        self, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor, chunk: int,
        size: int, *, grad: bool,
    ) -> None:  # fmt: skip
        self._size = size
        kind = hidden.device.type
        computed = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        self.loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        self.hidden = torch.empty_like(hidden) if grad else None
        self.weight = torch.zeros_like(weight) if grad else None
        self.bias = torch.zeros_like(bias) if grad and bias is not None else None
        with torch.no_grad(), torch.autocast(kind, enabled=False):
            matrix = weight.to(computed)
            offset = None if bias is None else bias.to(computed)
            for start in range(0, len(hidden), chunk):
                rows = slice(start, start + chunk)
                self._add(rows, hidden[rows].to(computed), matrix, offset, labels[rows])

    def _add(
        self, rows: slice, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor
    ) -> None:
        logits = F.linear(hidden, weight, bias).float()
        logits[:, self._size :] = -torch.inf
        scores = F.log_softmax(logits, dim=-1)
        self.loss += F.nll_loss(scores, labels, reduction="sum")
        if self.hidden is None or self.weight is None:
            return
        slope = scores.exp_()  # softmax, less one where the label is
        slope.scatter_add_(1, labels[:, None], slope.new_full((len(labels), 1), -1.0))
        if self.bias is not None:
            self.bias += slope.sum(0)
        slope = slope.to(hidden.dtype)
        self.hidden[rows] = slope @ weight
        if hidden.dtype == self.weight.dtype:
            self.weight.addmm_(slope.t(), hidden)
        else:
            self.weight += slope.t() @ hidden


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *rest: Any) -> Any:
        done = _Pass(hidden, weight, bias, *rest, grad=True)
        ctx.made = (done.hidden, done.weight, done.bias)
        return done.loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> Any:
        made, ctx.made = ctx.made, None  # scaled in place, so they serve once
        return *(None if gradient is None else gradient.mul_(slope) for gradient in made), None, None, None
