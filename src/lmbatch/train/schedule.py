"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from lmbatch.config import OptimizerConfig, ScheduleConfig, TrainConfig
from lmbatch.errors import ConfigError

_WSD_DECAY_SHARE = 0.1


def total_steps(config: TrainConfig, samples_per_epoch: int) -> int:
    """Optimizer steps of the whole run; with ``epochs``, the whole batches that fit into them.

    Raises ConfigError if that is less than one.
    """
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None
    total = int(config.epochs * samples_per_epoch) // config.batch.size
    if total < 1:
        raise ConfigError(
            f"epochs: {config.epochs} × {samples_per_epoch} samples are less than one batch.size = {config.batch.size}",
            remedy="make the batch smaller, or train for more epochs",
        )
    return total


def check_schedule(schedule: ScheduleConfig, total: int) -> None:
    """Raises ConfigError if warm-up and a decay of a given length do not fit into ``total`` steps.

    A run that is over before its warm-up is short, not wrong.
    """
    decay = schedule.decay_steps
    if decay is not None and schedule.warmup_steps + decay > total:
        raise ConfigError(
            f"schedule: {schedule.warmup_steps} steps of warm-up and {decay} of decay do not fit into {total} steps",
            remedy="shorten them, or train longer",
        )


def lr_at(step: int, optimizer: OptimizerConfig, schedule: ScheduleConfig, total: int) -> float:
    """The learning rate of step ``step`` (0 is the first) of ``total``.

    Warm-up rises linearly and reaches the peak at its last step; the first step is already above zero. cosine and
    linear fall over ``decay_steps`` (default: all that is left) to the floor; wsd (warm-up, stable, decay;
    arXiv:2404.06395) stays at the peak and falls linearly over its last phase; constant stays.
    """
    if step < schedule.warmup_steps:
        return optimizer.lr * (step + 1) / schedule.warmup_steps
    floor = schedule.min_lr_ratio
    return optimizer.lr * (floor + (1.0 - floor) * _shape(step, schedule, total))


def _shape(step: int, schedule: ScheduleConfig, total: int) -> float:
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "wsd":
        decay = schedule.decay_steps or max(1, math.ceil(total * _WSD_DECAY_SHARE))
        return 1.0 - _progress(step, total - decay, decay)
    progress = _progress(step, schedule.warmup_steps, schedule.decay_steps or total - schedule.warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * progress)) if schedule.name == "cosine" else 1.0 - progress


def _progress(step: int, start: int, length: int) -> float:
    return min(1.0, max(0.0, (step - start) / max(1, length)))
