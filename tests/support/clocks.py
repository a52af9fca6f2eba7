"""Processes whose clock is wrong."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("wrong_clock.c")
DAY = 86_400


def wrong_clock(folder: Path, shift: int) -> dict[str, str]:
    """The variables that shift the time of day of a process and its children by so many seconds.

    The library is built in ``folder``; without a C compiler the test says what is missing.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("this machine has no C compiler: run cluster/install.sh as root")
    library = folder / "wrong_clock.so"
    if not library.exists():
        subprocess.run([compiler, "-shared", "-fPIC", "-nostdlib", "-o", library, SOURCE], check=True)
    return {"LD_PRELOAD": str(library), "LMBATCH_TEST_SHIFT": str(shift)}
