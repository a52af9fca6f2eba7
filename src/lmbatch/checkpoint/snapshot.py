"""A copy of the training state in host memory, as it is at one moment, for a thread that writes it later.

::

    live tensors ──copy, training waits──▶ HostBuffers (kept from save to save) ──written behind──▶ the commit

There is one set of buffers, so the copy of one save must be written before the next one is taken.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import torch

from lmbatch.checkpoint.state import OptimizerState, TrainingState
from lmbatch.checkpoint.tensors import Pending
from lmbatch.checkpoint.weights import Weights


class HostBuffers:
    """Host memory by key, pinned for tensors of a GPU; a key keeps its memory as long as dtype and shape stay."""

    def __init__(self) -> None:
        self._buffers: dict[Hashable, torch.Tensor] = {}
        self._waits = False

    @property
    def bytes(self) -> int:
        """What is held."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def copy(self, key: Hashable, tensor: torch.Tensor) -> torch.Tensor:
        """A copy of ``tensor``, on the CPU; after :meth:`finish`, if it comes from a GPU."""
        buffer = self._buffers.get(key)
        if buffer is None or buffer.dtype != tensor.dtype or buffer.shape != tensor.shape:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=tensor.is_cuda)
            self._buffers[key] = buffer
        self._waits |= tensor.is_cuda
        buffer.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
        return buffer

    def finish(self) -> None:
        """Wait until every copy from a GPU is there."""
        if self._waits:
            torch.cuda.current_stream().synchronize()
            self._waits = False


def frozen(state: TrainingState, buffers: HostBuffers) -> TrainingState:
    """The same state, of copies. Every pending tensor in it is fetched now."""
    optimizer = state.optimizer
    found = replace(
        state,
        weights=frozen_weights(state.weights, buffers),
        optimizer=OptimizerState(optimizer.parameters, _copied(optimizer.state, ("optimizer",), buffers)),
        rng=_copied(state.rng, ("rng",), buffers),
        scaler=_copied(state.scaler, ("scaler",), buffers),
        extra=_copied(state.extra, ("extra",), buffers),
    )
    buffers.finish()
    return found


def frozen_weights(weights: Weights, buffers: HostBuffers) -> Weights:
    """Weights as copies."""
    tensors = {name: Pending.of(buffers.copy(("model", name), item.fetch())) for name, item in weights.tensors.items()}
    return Weights(tensors, weights.aliases)


def _copied(value: Any, path: tuple[Hashable, ...], buffers: HostBuffers) -> Any:
    """``value`` with new containers and copied tensors; what else can be saved cannot be changed."""
    if isinstance(value, torch.Tensor):
        return Pending.of(buffers.copy(path, value))
    if isinstance(value, dict):
        return {key: _copied(item, (*path, key), buffers) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_copied(item, (*path, number), buffers) for number, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    return value
