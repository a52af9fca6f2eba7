"""Run a command on chosen cores, and say what it cost together with everything that it started."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory


@dataclass(frozen=True)
class Cost:
    """Seconds, and the peak memory in bytes of the largest process. ``output`` is what it printed."""

    wall: float
    cpu: float
    memory: int
    output: str = ""


def run(command: Sequence[str], cores: set[int]) -> Cost:
    """Stops the bench with the command's own words if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with (
        TemporaryDirectory() as folder,
        (Path(folder) / "out").open("w+b") as out,
        (Path(folder) / "err").open("w+b") as err,
    ):
        begun = time.monotonic()
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=err,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        # Not waitpid: the kernel adds up what the process waited for, which is all that it started.
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = [(file.seek(0), file.read().decode(errors="replace"))[1] for file in (out, err)]
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{texts[1][-3000:]}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, texts[0])


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def medians(work: dict[str, Callable[[], Cost]], repeat: int) -> dict[str, Cost]:
    """Each of ``work`` so many times, in turn, so that a slow moment of the machine meets all of them."""
    found: dict[str, list[Cost]] = {name: [] for name in work}
    for _ in range(repeat):
        for name, once in work.items():
            found[name].append(once())
            print(".", end="", file=sys.stderr, flush=True)
    return {name: _median(costs) for name, costs in found.items()}


def _median(costs: Sequence[Cost]) -> Cost:
    middle = sorted(costs, key=lambda cost: cost.cpu)[len(costs) // 2]
    return Cost(
        statistics.median(cost.wall for cost in costs),
        statistics.median(cost.cpu for cost in costs),
        max(cost.memory for cost in costs),
        middle.output,
    )
