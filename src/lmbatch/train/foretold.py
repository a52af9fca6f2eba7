"""Every start of a run keeps what the arithmetic says of it: ``plan.json``, which `lmbatch status` compares later."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from lmbatch.config import TrainConfig
from lmbatch.estimate.devices import find_device, peak_flops
from lmbatch.estimate.prediction import Place, Prediction, Rates, Work
from lmbatch.estimate.shape import ModelShape
from lmbatch.train.planning import keep_prediction, prediction_of, read_prediction, setting_of

_SAME = ("config", "steps", "world", "micro", "engine", "precision", "device", "memory", "save_every")


def foretell(
    run: Path, config: TrainConfig, shape: ModelShape, *, device: torch.device, world: int, precision: str, steps: int,
    tokens_per_epoch: int,
) -> Prediction:  # fmt: skip
    """Keep the prediction of a run that starts now. One of the same run that is there, from `lmbatch plan train --save`
    or from an earlier attempt, stays: it may know more, by a probe."""
    setting = setting_of(config, world=world, precision=precision, on_gpu=device.type == "cuda")
    work = Work(steps, config.batch.size, tokens_per_epoch)
    found = prediction_of(
        config, shape, setting, work, _place(config, device, precision), Rates(), precision=precision
    ).model_copy(update={"made_by": "start"})
    earlier = read_prediction(run)
    if earlier is not None and all(getattr(earlier, name) == getattr(found, name) for name in _SAME):
        return earlier
    keep_prediction(run, found)
    return found


def _place(config: TrainConfig, device: torch.device, precision: str) -> Place:
    each = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type != "cuda":
        return Place(device.type, None, config.peak_flops, each)
    name = torch.cuda.get_device_name(device)
    known = find_device(name)
    room = torch.cuda.get_device_properties(device).total_memory
    return Place(known.name if known else name, room, config.peak_flops or peak_flops(name, precision), each)
