"""More memory for tasks whose element ran out of it. Pure, but for what it remembers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile

from lmbatch.config import SlurmSite
from lmbatch.launch.slurm_commands import Ending
from lmbatch.preprocess import Unit

_MORE = 2  # times what was too little
_USUAL_LIMIT = 4  # times what the site asks for, where it names no limit
_MIB = 2**20


class MemoryNeeds:
    """What each task must have, where that is more than the site's usual ``memory``; all in bytes."""

    def __init__(self, site: SlurmSite) -> None:
        self._usual = site.memory
        self._most = site.max_memory or _USUAL_LIMIT * site.memory
        self._needs: dict[str, int] = {}

    def of(self, tasks: Iterable[str]) -> int | None:
        """What an element with these tasks must ask for; None for the usual."""
        most = max((self._needs.get(task, 0) for task in tasks), default=0)
        return most or None

    def alike(self, tasks: Sequence[Unit]) -> list[Unit]:
        """Tasks from the front that need the same: an array asks for one amount."""
        first = self._needs.get(tasks[0].id)
        return list(takewhile(lambda task: self._needs.get(task.id) == first, tasks))

    def ran_out(self, tasks: Sequence[str], had: int | None) -> str:
        """An element with these tasks, which ``had`` so much (None: the usual), ran out of it. What will be done."""
        before = had or self._usual
        if before >= self._most:
            return f"{_mib(before)} were not enough, and slurm.max_memory of the site allows no more"
        wanted = min(self._most, _MORE * before)
        self._needs |= dict.fromkeys(tasks, wanted)
        return f"{_mib(before)} were not enough: its tasks are submitted again with {_mib(wanted)}"


def is_out_of_memory(ending: Ending | None, words: str) -> bool:
    """Did it die for want of memory? Slurm says so, or the kernel's killer in the log."""
    return (ending is not None and ending.state == "OUT_OF_MEMORY") or any(
        sign in words.lower() for sign in ("oom-kill", "oom kill", "out of memory", "memory limit")
    )


def _mib(size: int) -> str:
    return f"{-(-size // _MIB)} MiB"
