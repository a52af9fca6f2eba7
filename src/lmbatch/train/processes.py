"""The processes of a run: started as asked, and agreeing on numbers.

Several ways to launch silently start something else than was asked for: one process instead of two, or two runs that
know nothing of each other. So what Accelerate found is compared with what the environment says, and a difference
stops the run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from accelerate.accelerator import Accelerator
from accelerate.utils.operations import broadcast_object_list

from lmbatch.config import TrainConfig
from lmbatch.errors import LaunchError

log = logging.getLogger(__name__)
_MIXED = {"launcher": None, "fp32": "no", "bf16": "bf16", "fp16": "fp16"}
_ENGINES = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a run. ``precision`` is ``fp32``, ``bf16`` or ``fp16``: what launcher and config came to."""

    accelerator: Accelerator
    precision: str


@dataclass(frozen=True, slots=True)
class Launched:
    """What Accelerate made of the environment. ``kind`` is its ``distributed_type``."""

    processes: int
    kind: str


def check_launch(launched: Launched, environ: Mapping[str, str], *, engine: str = "plain") -> None:
    """Raises LaunchError if the processes are not the ones that the environment and ``engine.name`` ask for."""
    _check_engine(launched, environ, engine)
    asked, source = _asked(environ)
    if asked != launched.processes:
        raise LaunchError(
            f"{source} asks for {asked} processes, but accelerate sees {launched.processes}: each of them would train "
            "a run of its own",
            remedy="on a machine without GPUs export ACCELERATE_USE_CPU=true and start the processes with torchrun; "
            "with srun set RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; for one process unset them",
        )
    if launched.processes > 1 and engine == "plain" and not launched.kind.startswith("MULTI_"):
        raise LaunchError(
            f"{launched.processes} processes with distributed_type {launched.kind}, which does not average gradients",
            remedy="use distributed_type MULTI_GPU",
        )


def _check_engine(launched: Launched, environ: Mapping[str, str], engine: str) -> None:
    for variable, name in _ENGINES.items():
        if environ.get(variable, "").lower() in ("1", "true") and name.lower() != engine:
            remedy = "unset it, or set engine.name to deepspeed" if name == "DeepSpeed" else "unset it"
            raise LaunchError(f"{variable} asks for {name}, but engine.name is {engine}", remedy=remedy)
    if engine == "deepspeed" and launched.kind != "DEEPSPEED":
        raise LaunchError(
            f"engine.name is deepspeed, but accelerate made it {launched.kind}: nothing would be shared out",
            remedy="unset the variables ACCELERATE_*, or start with srun or torchrun",
        )


def _asked(environ: Mapping[str, str]) -> tuple[int, str]:
    if "WORLD_SIZE" in environ:
        return int(environ["WORLD_SIZE"]), "WORLD_SIZE"
    # accelerate's launcher for one process sets MASTER_ADDR only where several were asked for, and starts one.
    if "MASTER_ADDR" in environ and "ACCELERATE_MIXED_PRECISION" in environ:
        return 2, "accelerate launch (MASTER_ADDR without WORLD_SIZE)"
    return int(environ.get("SLURM_STEP_NUM_TASKS", "1")), "SLURM_STEP_NUM_TASKS"


def start_processes(config: TrainConfig) -> Processes:
    """Device, precision and process group by Accelerate, with the launch checked. Raises LaunchError."""
    if config.engine.name == "deepspeed":
        started = _with_deepspeed(config)
    else:
        accelerator = _plain_accelerator(config.precision)
        started = Processes(accelerator, precision_of(accelerator))
    kind = str(started.accelerator.distributed_type).rsplit(".", 1)[-1]
    launched = Launched(processes=started.accelerator.num_processes, kind=kind)
    check_launch(launched, os.environ, engine=config.engine.name)
    return started


def _with_deepspeed(config: TrainConfig) -> Processes:
    from lmbatch.train.deepspeed_launch import deepspeed_accelerator  # an extra that the plain engine does not need

    mixed = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    precision = config.precision if config.precision != "launcher" else {"no": "fp32"}.get(mixed, mixed)
    return Processes(deepspeed_accelerator(config, precision=precision, world=_asked(os.environ)[0]), precision)


def _plain_accelerator(precision: str) -> Accelerator:
    if not torch.cuda.is_available():
        os.environ.setdefault(
            "DS_ACCELERATOR", "cpu"
        )  # or DeepSpeed, which accelerate imports, warns of the missing GPU
    try:
        accelerator = Accelerator(mixed_precision=_MIXED[precision])
    except ValueError as error:
        raise LaunchError(
            f"accelerate refuses precision `{precision}` here: {' '.join(str(error).split())}",
            remedy="set precision to fp32, or mixed_precision to 'no' in the accelerate config",
        ) from error
    if precision_of(accelerator) == "fp16" and accelerator.device.type == "cpu":
        raise LaunchError(
            "fp16 was asked for, but on a CPU accelerate computes in fp32 without a word",
            remedy="set precision to fp32 or bf16, or mixed_precision to 'no' in the accelerate config",
        )
    return accelerator


def precision_of(accelerator: Accelerator) -> str:
    """``fp32``, ``bf16`` or ``fp16``: how accelerate computes."""
    mixed = str(accelerator.mixed_precision)
    return "fp32" if mixed == "no" else mixed


class Ranks:
    """Agreement between the processes of a run; with one process every method gives its argument back."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.rank = int(accelerator.process_index)
        self.world = int(accelerator.num_processes)
        self._device = accelerator.device

    @property
    def main(self) -> bool:
        """Is this the process that writes?"""
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over the processes, in float64."""
        if self.world == 1:
            return list(values)
        tensor = self.total_of(torch.tensor(values, dtype=torch.float64, device=self._device))
        return [float(value) for value in tensor.tolist()]

    def total_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same for a tensor, in place, where it is: on a GPU nobody waits for it."""
        if self.world > 1:
            tensor = tensor.to(self._device)
            torch.distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Is the flag set on any process?"""
        return self.total([float(flag)])[0] > 0

    def all_of(self, values: list[int]) -> list[int]:
        """The numbers of all processes, one after the other."""
        if self.world == 1:
            return values
        found: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(found, values)
        return [value for part in found for value in part]

    def from_main(self, value: Any) -> Any:
        """The main process's value, on every process."""
        if self.world == 1:
            return value
        box = [value]
        broadcast_object_list(box)
        return box[0]

    def number_from_main(self, value: int) -> int:
        """The main process's number, on every process; quicker than ``from_main``."""
        if self.world == 1:
            return value
        box = torch.tensor(value, dtype=torch.int64, device=self._device)
        torch.distributed.broadcast(box, src=0)
        return int(box.item())

    def barrier(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            torch.distributed.barrier()

    def leave(self, *, together: bool) -> None:
        """Leave the process group. Without a barrier before it gloo aborts now and then; after an error there is
        nobody to wait for."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            if together:
                self._last_barrier()
            torch.distributed.destroy_process_group()

    def _last_barrier(self) -> None:
        try:
            torch.distributed.barrier()
        except RuntimeError as error:
            # Everything is saved by now: another process that was quicker to leave is no failure of the run.
            log.warning("the processes did not leave together: %s", str(error).splitlines()[0])
