"""Checkpoints: how big, how many, how long, and what a stop needs. Pure arithmetic over stated speeds."""

from __future__ import annotations

from lmbatch.config import SaveConfig
from lmbatch.config.base import Section
from lmbatch.store.s3 import parts_of

# One whole copy in float32: weights and AdamW's two moments, however many processes hold it.
BYTES_PER_PARAMETER = 12
# sha256 over every byte that was written, on one core with the SHA instructions; a core without them does a third.
HASH_SPEED = 1.2e9
MEMORY_SPEED = 5e9  # no disk is faster than a copy within memory on one core
# Assumed: off a GPU into memory that is not page-locked, a fraction of the 32 GB/s of PCIe 4.0 x16.
COPY_SPEED = 4e9
# A copy into memory that the process has not touched before, one core.
FRESH_MEMORY_SPEED = 1.5e9
# Slurm looks at time limits every 30 s or so; what it says a minute before comes as late as that.
SCHEDULER_SECONDS = 30.0
_FILES = 7  # besides the two big ones' parts: random states, extras, their JSON, the receipt


class Speeds(Section):
    """Bytes per second: ``write`` to the run folder's disk, ``upload`` to ``save.store``; ``measured`` tells whether a
    probe found ``write``."""

    write: float = 500e6
    upload: float = 100e6
    measured: bool = False


class Saving(Section):
    """The checkpoints of a whole run.

    ``seconds`` is one save from the copy to its receipt, ``stall`` what training waits of it, ``upload_seconds`` the
    copy to the store (0: none); ``count`` saves write ``written`` bytes in all, of which ``kept`` stay, and
    ``requests`` writes go to the store.
    """

    bytes: int
    seconds: float
    stall: float
    upload_seconds: float
    count: int
    written: int
    kept: int
    requests: int

    def notice(self, step_seconds: float) -> float:
        """Seconds that a stop needs: the step in progress, a save that may be under way, its own, and the delay of a
        scheduler that looks twice a minute."""
        return step_seconds + 2 * self.seconds + SCHEDULER_SECONDS


def checkpoint_bytes(parameters: int) -> int:
    """Of one checkpoint."""
    return BYTES_PER_PARAMETER * parameters


def saving(
    parameters: int, config: SaveConfig, *, steps: int, epochs: int, speeds: Speeds, asynchronous: bool, on_gpu: bool
) -> Saving:
    """``epochs`` are the whole passes in ``steps``."""
    size = checkpoint_bytes(parameters)
    copy = size / (COPY_SPEED if on_gpu else FRESH_MEMORY_SPEED)
    seconds = size / speeds.write + size / HASH_SPEED
    count = -(-steps // config.every) + (epochs if config.every_epoch else 0)
    stored = config.store is not None
    return Saving(
        bytes=size,
        seconds=copy + seconds,
        stall=copy if asynchronous else copy + seconds,
        upload_seconds=size / speeds.upload if stored else 0.0,
        count=count,
        written=count * size,
        kept=min(count, _kept(config, steps)) * size,
        requests=count * (_FILES + parts_of(size)) if stored else 0,
    )


def _kept(config: SaveConfig, steps: int) -> int:
    """Checkpoints that stay at the end; one that is kept for two reasons counts twice: an upper bound."""
    return config.keep + config.keep_best + (steps // config.keep_every if config.keep_every else 0)
