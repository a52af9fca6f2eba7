"""What this machine has: its first GPU by its driver's own tool, its memory. No torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

_MIB = 2**20
_ASK = ("--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
_SECONDS = 20.0


@dataclass(frozen=True)
class Machine:
    """``gpu`` is the CUDA name of the first GPU (None: there is none) and ``gpu_memory`` what its driver hands out,
    ``memory`` the bytes of the host."""

    gpu: str | None
    gpu_memory: int | None
    memory: int


def this_machine() -> Machine:
    """Ask the driver and the kernel."""
    name, memory = parse_gpu(_told_by_driver())
    return Machine(name, memory, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def parse_gpu(text: str) -> tuple[str | None, int | None]:
    """``NVIDIA GeForce RTX 3090, 24576`` → its name, and its bytes; of several the first."""
    name, _, mebibytes = text.partition("\n")[0].rpartition(",")
    return (name.strip(), int(mebibytes) * _MIB) if name.strip() and mebibytes.strip().isdigit() else (None, None)


def _told_by_driver() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    try:
        done = subprocess.run([tool, *_ASK], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
