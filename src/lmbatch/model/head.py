"""The output projection as the place where the loss is computed.

::

    model(input_ids).logits      without targets: logits, as ever
                                 with targets:    the summed loss of those tokens alone, a scalar

The model is called as always, so that whatever wraps it (data parallelism, ZeRO, autocast, torch.compile) sees one
forward pass with all weights in it; only its last layer gives less. Masked models project the hidden tokens and not
all of them, and with a chunk no logits of a whole batch exist.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from lmbatch.errors import ConfigError
from lmbatch.model.chunked_loss import chunked_cross_entropy

_TOLERANCE = 1e-4  # of the loss; another order of additions makes less than 1e-6
_PROBED = (1, 5)  # a batch to ask with


@dataclass(frozen=True, slots=True)
class Targets:
    """``labels`` (N) int64 of the tokens that are predicted, in order; ``rows`` (N): where they stand in the
    flattened batch, None if every token has one."""

    labels: torch.Tensor
    rows: torch.Tensor | None


class LossHead(nn.Linear):
    """A linear layer that gives the loss while targets are set. ``chunk`` tokens at a time; 0: all at once.

    ``size`` is the number of logits; further rows of the weight are padding.
    """

    chunk: int
    size: int
    targets: Targets | None

    @contextlib.contextmanager
    def asked_for(self, targets: Targets) -> Iterator[None]:
        """A forward pass meanwhile gives the loss of ``targets``."""
        self.targets = targets
        try:
            yield
        finally:
            self.targets = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits, or with targets their cross-entropy in nats, summed, float32."""
        return super().forward(hidden) if self.targets is None else self._loss(hidden, self.targets)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _loss(self, hidden: torch.Tensor, targets: Targets) -> torch.Tensor:
        flat = hidden.flatten(0, -2)
        chosen = flat if targets.rows is None else flat.index_select(0, targets.rows)
        if self.chunk:
            return chunked_cross_entropy(chosen, self.weight, self.bias, targets.labels, self.chunk, self.size)
        logits = super().forward(chosen)[:, : self.size].float()
        return F.cross_entropy(logits, targets.labels, reduction="sum")


def loss_head(model: PreTrainedModel) -> LossHead | None:
    """The head that ``fit_loss_head`` gave this model, if it did."""
    plain: Any = model
    found = plain.get_output_embeddings()
    return found if isinstance(found, LossHead) else None


def fit_loss_head(model: PreTrainedModel, *, chunk: int) -> bool:
    """Let the model's output projection compute losses. False, and nothing is changed, if this model cannot.

    It cannot if the projection is no ``nn.Linear``, or if the model does something to the logits afterwards: then it
    does the same to the loss, and that shows when it is tried. Names and number of the parameters stay.
    """
    plain: Any = model
    head: Any = plain.get_output_embeddings()
    if not _is_plain(head):
        return False
    size = _asked(model).shape[-1]
    _turn_into(LossHead, head)
    head.chunk, head.size, head.targets = chunk, size, None
    if _gives_the_loss(model, head):
        return True
    _turn_into(nn.Linear, head)
    return False


def require_loss_head(model: PreTrainedModel, *, chunk: int) -> None:
    """The same. Raises ConfigError where it cannot be."""
    if not fit_loss_head(model, chunk=chunk):
        raise ConfigError(
            f"compute.loss_chunk_tokens: the model type `{model.config.model_type}` does more with its logits than one "
            "linear layer (a scale, a cap, an output of its own)",
            remedy="set compute.loss_chunk_tokens to 0",
        )


def _is_plain(head: object) -> bool:
    return type(head) is nn.Linear


def _turn_into(kind: type[nn.Linear], head: Any) -> None:
    """The same module with its parameters, hooks and name, so that nobody who holds it has to know."""
    head.__class__ = kind


def _gives_the_loss(model: PreTrainedModel, head: LossHead) -> bool:
    labels = _probe(model).flatten()
    try:
        with head.asked_for(Targets(labels, None)):
            found = _asked(model)
    except (RuntimeError, IndexError, TypeError, ValueError):  # its code looks at the shape of the logits
        return False
    expected = F.cross_entropy(_asked(model).flatten(0, 1).float(), labels, reduction="sum")
    return found.ndim == 0 and torch.allclose(found, expected, rtol=_TOLERANCE)


def _probe(model: PreTrainedModel) -> torch.Tensor:
    count = _PROBED[0] * _PROBED[1]
    size: int = model.config.vocab_size
    return (torch.arange(1, 1 + count, device=model.device) % size).view(_PROBED)


def _asked(model: PreTrainedModel) -> torch.Tensor:
    plain: Any = model
    training = model.training
    plain.eval()
    try:
        with torch.no_grad():
            logits: torch.Tensor = plain(input_ids=_probe(model)).logits
    finally:
        model.train(training)
    return logits
