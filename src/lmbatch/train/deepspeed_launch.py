"""Starting DeepSpeed through Accelerate, past the ways in which it silently becomes something else."""

from __future__ import annotations

import logging
import os
from collections.abc import MutableMapping
from typing import Any

import torch
from accelerate.accelerator import Accelerator
from accelerate.utils.dataclasses import DeepSpeedPlugin, InitProcessGroupKwargs
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from lmbatch.config import TrainConfig
from lmbatch.errors import LaunchError
from lmbatch.train.deepspeed_config import deepspeed_config

# What a process needs to be a process group of one.
_ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}


def deepspeed_accelerator(config: TrainConfig, *, precision: str, world: int) -> Accelerator:
    """An Accelerator whose ``prepare`` gives DeepSpeed's engine. Raises LaunchError for what cannot work."""
    _refuse_fp16(precision)
    on_gpu = torch.cuda.is_available()
    prepare_environment(os.environ, world=world, on_gpu=on_gpu)
    _load_without_compiling()
    values = deepspeed_config(config, world=world, precision=precision, on_gpu=on_gpu)
    accelerator = Accelerator(
        gradient_accumulation_steps=values["gradient_accumulation_steps"],
        mixed_precision="no",  # accelerate would switch on DeepSpeed's bf16, which rounds the weights
        deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=values, zero3_init_flag=False),
        # DeepSpeed takes the CPU for a device with a library of its own, which nobody has.
        kwargs_handlers=[] if on_gpu else [InitProcessGroupKwargs(backend="gloo")],
    )
    _forget_zero3()
    return accelerator


def prepare_environment(environ: MutableMapping[str, str], *, world: int, on_gpu: bool) -> None:
    """Make the variables say what DeepSpeed understands. Raises LaunchError where that is not possible."""
    cpu = environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")
    if cpu and on_gpu:
        raise LaunchError(
            "ACCELERATE_USE_CPU asks for the CPU, but DeepSpeed would take the GPU that is here",
            remedy="hide it (CUDA_VISIBLE_DEVICES=), or set engine.name to plain",
        )
    if world > 1:
        missing = [name for name in _ALONE if name not in environ]
        if missing:
            raise LaunchError(
                f"{world} processes, but {', '.join(missing)} not set: DeepSpeed would ask MPI for them",
                remedy="start with srun or torchrun, or set them",
            )
    for name, value in _ALONE.items():
        environ.setdefault(name, value)
    # With it accelerate would do data parallelism without DeepSpeed, and not say so.
    environ.pop("ACCELERATE_USE_CPU", None)


def _refuse_fp16(precision: str) -> None:
    if precision not in ("fp32", "bf16"):
        raise LaunchError(
            f"{precision} with DeepSpeed: its loss scaler leaves out steps on its own, and the run would not be that "
            "of the plain engine",
            remedy="set precision to bf16 or fp32, or engine.name to plain",
        )


def _load_without_compiling() -> None:
    """Import DeepSpeed. On a CPU it would now compile a library for inference (half a minute, at each start)."""
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)


def _forget_zero3() -> None:
    """While transformers knows of stage 3 it builds models in pieces, with another initialisation."""
    forget: Any = unset_hf_deepspeed_config
    forget()
