"""The bench of the loader runs and has all its rows. What it measures here means nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench" / "bench_loader.py"
ROWS = (
    "plain sequential read to int64", "lmbatch, global", "lmbatch, windowed", "lmbatch, documents kept apart",
    "lmbatch, best fit", "lmbatch, masked", "datasets", "Megatron-LM GPTDataset",
)  # fmt: skip


def test_the_quick_bench_has_a_row_for_each_way_of_reading(tmp_path):
    done = subprocess.run(
        [sys.executable, str(BENCH), "--quick"], capture_output=True, text=True, check=False, timeout=400,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    rates = {cells[0]: cells[1] for cells in lines if len(cells) > 4}
    for name in ROWS:
        assert float(rates[name].replace(",", "")) > 0
    assert not list(tmp_path.rglob("tokens.bin"))  # its corpus is gone again
