"""What is due after which step."""

from __future__ import annotations


def due(every: int, step: int, total: int) -> bool:
    """Is something that is done every ``every`` steps (0: only at the end) due after step ``step``?"""
    return step == total or (every > 0 and step > 0 and step % every == 0)


def completes_epoch(step: int, batch_size: int, samples_per_epoch: int) -> bool:
    """Is the last sample of a pass over the training split in the batch of step ``step`` (1 is the first)?"""
    return step * batch_size // samples_per_epoch > (step - 1) * batch_size // samples_per_epoch
