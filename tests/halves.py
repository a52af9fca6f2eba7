"""The suite as two processes side by side: what mostly waits (for Slurm, images, a browser), and all the rest.

``python tests/halves.py [OPTIONS OF PYTEST]``. Their dots mix; each prints its own report when it ends. Ctrl-C reaches
both, as they are in the terminal's process group. The exit code is that of the first half that did not pass.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
WAITING = ("browser", "cluster", "containers")


def halves() -> tuple[list[str], list[str]]:
    """Folders with tests, each in one half."""
    folders = sorted(folder.name for folder in TESTS.iterdir() if folder.is_dir() and any(folder.rglob("test_*.py")))
    return [name for name in folders if name in WAITING], [name for name in folders if name not in WAITING]


def main() -> int:
    """Run both; give the worse exit code."""
    commands = [
        [sys.executable, "-m", "pytest", *sys.argv[1:], *(f"tests/{name}" for name in half)] for half in halves()
    ]
    running = [subprocess.Popen(command, cwd=TESTS.parent) for command in commands]
    try:
        codes = [process.wait() for process in running]
    except KeyboardInterrupt:  # they have had it too, and tidy up
        codes = [process.wait() for process in running]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
