"""Between the host and a GPU without waiting; on a CPU the same calls hand the tensors through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``tensor``, of the host, on ``device``. The host goes on while a GPU reads its pinned copy.

    Pinned memory is given back to torch's own cache, which hands it out again once the GPU has read it.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class Arriving:
    """Numbers on their way to the host."""

    _held: torch.Tensor
    _here: Any  # the event after which they have arrived; None: they were here all along

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Arriving:
        """Send ``tensor`` off, as it is when everything that is queued on its device now is done."""
        if tensor.device.type != "cuda":
            return cls(tensor, None)
        held = torch.empty_like(tensor, device="cpu", pin_memory=True)
        held.copy_(tensor, non_blocking=True)
        event: Any = torch.cuda.Event
        here = event()
        here.record()
        return cls(held, here)

    def numbers(self) -> list[float]:
        """Wait until they are here."""
        if self._here is not None:
            self._here.synchronize()
        return [float(number) for number in self._held.tolist()]
