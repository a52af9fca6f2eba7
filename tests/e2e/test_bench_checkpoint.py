"""The bench of checkpoints runs, in its short form, and prints all its rows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
ROWS = {
    "lmbatch, plain, synchronous": 1, "lmbatch, plain, asynchronous": 1, "transformers `Trainer`": 1,
    "lmbatch, ZeRO 2, synchronous": 2, "lmbatch, ZeRO 2, asynchronous": 2, "DeepSpeed `save_checkpoint`, stage 2": 2,
    "lmbatch": 1, "`Trainer`, rows on disk": 1, "`Trainer`, a stream of rows": 1,
    "from the disk": 1, "from the store": 1, "its save: written, hashed, fsync": 1, "sha256 of it alone": 1,
}  # fmt: skip


def test_the_short_form_prints_every_row():
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(ROOT / "tests" / "bench" / "bench_checkpoint.py"), "--quick"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^\| (.+?) \| (?:[0-9.]+ \| )+[0-9.]+ \|$", done.stdout, flags=re.MULTILINE)
    assert {name: found.count(name) for name in ROWS} == ROWS
