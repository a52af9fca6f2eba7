"""Where DeepSpeed keeps what: weights, gradients and the optimizer's moments, by stage.

::

    stage   weights             gradients after the backward pass    moments
    0       whole               whole                                whole, torch's optimizer by parameter
    1, 2    whole (and an fp32  a slice of the flattened group       a slice of the flattened group
            slice of each group)
    3       a slice of each     a slice of each parameter            slices of each parameter, side by side

DeepSpeed's public functions for the state of one parameter (deepspeed/utils/tensor_fragment.py) are used where they
work; there are none for the gradients that are about to be applied, nor for state before the first step.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from deepspeed import utils
from torch import nn

MOMENTS = ("exp_avg", "exp_avg_sq")  # what AdamW keeps of each parameter, apart from the number of steps
KINDS = ("weight", *MOMENTS)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece of a parameter that a process holds: ``size`` elements from ``start`` of the flattened parameter, which
    lie from ``offset`` on in flat tensor number ``group`` of that process."""

    start: int
    size: int
    group: int
    offset: int

    def of(self, flat: Sequence[torch.Tensor]) -> torch.Tensor:
        """The piece, a view."""
        return flat[self.group].narrow(0, self.offset, self.size)


class Partition(ABC):
    """Access to one engine's tensors. What is collective, every process calls together and in the same order."""

    shared_out = True  # does each process hold a share only?

    def __init__(self, engine: Any, parameters: Mapping[str, nn.Parameter]) -> None:
        self._zero: Any = engine.optimizer
        self._parameters = parameters

    @abstractmethod
    def masters(self) -> list[torch.Tensor]:
        """The tensors that torch's optimizer steps."""

    @abstractmethod
    def stretches(self, name: str) -> list[Stretch]:
        """Which pieces of a parameter, and of its moments, this process holds; none of the padding."""

    def flat(self, kind: str) -> list[torch.Tensor]:
        """The flat tensors that hold this process's pieces of one of ``KINDS``."""
        if kind == "weight":
            return [master.data.view(-1) for master in self.masters()]
        return [self._base.state[master][kind].view(-1) for master in self.masters()]

    @abstractmethod
    def gradients(self) -> list[torch.Tensor]:
        """What this process will apply, after the last backward pass of a step."""

    @property
    def _base(self) -> torch.optim.Optimizer:
        return self._zero.optimizer  # type: ignore[no-any-return]

    def elements(self) -> int:
        """How many numbers this process steps, padding included."""
        return sum(master.numel() for master in self.masters())

    def steps(self) -> float:
        """Optimizer steps that the moments have seen."""
        return float(self._base.state[self.masters()[0]]["step"])

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """A step of torch's optimizer does nothing meanwhile. State that it would have made is made: of zeros."""
        base: Any = self._base
        if self.masters()[0] not in base.state:
            self.begin(0.0)
        step, base.step = base.step, lambda *_, **__: None
        try:
            yield
        finally:
            base.step = step

    def begin(self, steps: float) -> None:
        """Make moments of zero, as if ``steps`` steps had been taken."""
        fused = bool(self._base.defaults.get("fused"))  # then steps are counted where the weights are
        for master in self.masters():
            self._base.state[master] = {
                "step": torch.tensor(steps, device=master.device if fused else None),
                **{key: torch.zeros_like(master.data) for key in MOMENTS},
            }  # fmt: skip

    def weight(self, name: str) -> torch.Tensor:
        """A whole parameter in fp32 (collective)."""
        return self._parameters[name].data

    @abstractmethod
    def moment(self, name: str, key: str) -> torch.Tensor:
        """A whole moment of a parameter (collective)."""

    @abstractmethod
    def set_moment(self, name: str, key: str, value: torch.Tensor) -> None:
        """Take this process's share of a whole moment."""


class Replicated(Partition):
    """Stage 0."""

    shared_out = False

    @property
    def _base(self) -> torch.optim.Optimizer:
        return self._zero  # type: ignore[no-any-return]

    def masters(self) -> list[torch.Tensor]:
        return list(self._parameters.values())

    def gradients(self) -> list[torch.Tensor]:
        return [parameter.grad for parameter in self._parameters.values() if parameter.grad is not None]

    def stretches(self, name: str) -> list[Stretch]:
        return [Stretch(0, self._parameters[name].numel(), list(self._parameters).index(name), 0)]

    def moment(self, name: str, key: str) -> torch.Tensor:
        return self._base.state[self._parameters[name]][key]  # type: ignore[no-any-return]

    def set_moment(self, name: str, key: str, value: torch.Tensor) -> None:
        self.moment(name, key).copy_(value)


class Flat(Partition):
    """Stages 1 and 2: each group of parameters is one long tensor, cut into equal slices."""

    def masters(self) -> list[torch.Tensor]:
        return list(self._zero.single_partition_of_fp32_groups)

    def gradients(self) -> list[torch.Tensor]:
        if self._zero.cpu_offload:
            self._zero._wait_for_offload_copies()
            return [master.grad for master in self.masters() if master.grad is not None]
        return [tensor for tensors in self._zero.averaged_gradients.values() for tensor in tensors]

    def moment(self, name: str, key: str) -> torch.Tensor:
        whole = torch.zeros_like(self._parameters[name].data)
        for piece in self.stretches(name):
            whole.view(-1).narrow(0, piece.start, piece.size).copy_(piece.of(self.flat(key)))
        if torch.distributed.get_world_size() > 1:
            torch.distributed.all_reduce(whole)
        return whole

    def set_moment(self, name: str, key: str, value: torch.Tensor) -> None:
        for piece in self.stretches(name):
            piece.of(self.flat(key)).copy_(value.flatten().narrow(0, piece.start, piece.size))

    def stretches(self, name: str) -> list[Stretch]:
        """DeepSpeed's own function for this knows the moments of the first group of parameters only."""
        parameter: Any = self._parameters[name]
        mapping = parameter._hp_mapping
        if mapping is None:
            return []
        inside, held = mapping.lp_fragment_address, mapping.get_hp_fragment_address()
        return [Stretch(inside.start, inside.numel, mapping.param_group_index, held.start)]


class Sharded(Partition):
    """Stage 3: each parameter is cut into equal slices, the last one padded."""

    def masters(self) -> list[torch.Tensor]:
        return list(self._zero.fp32_partitioned_groups_flat)

    def gradients(self) -> list[torch.Tensor]:
        if self._zero.offload_optimizer:
            return [master.grad for master in self.masters() if master.grad is not None]
        return [tensor for tensors in self._zero.averaged_gradients.values() for tensor in tensors]

    def stretches(self, name: str) -> list[Stretch]:
        parameter: Any = self._parameters[name]
        group, offset, size = self._zero.grad_position[self._zero.get_param_id(parameter)]
        start = torch.distributed.get_rank() * size
        inside = min(size, parameter.ds_numel - start)
        return [Stretch(start, inside, group, offset)] if inside > 0 else []

    def weight(self, name: str) -> torch.Tensor:
        found: torch.Tensor = utils.safe_get_full_fp32_param(self._parameters[name])
        return found

    def moment(self, name: str, key: str) -> torch.Tensor:
        found: torch.Tensor = utils.safe_get_full_optimizer_state(self._parameters[name], key)
        return found

    def set_moment(self, name: str, key: str, value: torch.Tensor) -> None:
        # The public setter of whole values forgets the padding, and refuses a size that does not divide evenly.
        parameter: Any = self._parameters[name]
        size = parameter.ds_tensor.ds_numel
        own = torch.zeros(size)
        rest = value.flatten()[torch.distributed.get_rank() * size :][:size]
        own[: rest.numel()] = rest
        utils.safe_set_local_optimizer_state(parameter, own, key)


def partition_of(engine: Any, parameters: Mapping[str, nn.Parameter]) -> Partition:
    """The partition that DeepSpeed's ``engine`` really made. ``parameters``: every trained one, by its first name."""
    kinds: tuple[type[Partition], ...] = (Replicated, Flat, Flat, Sharded)
    return kinds[int(engine.zero_optimization_stage())](engine, parameters)
