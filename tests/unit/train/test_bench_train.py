"""tests/bench/bench_train.py runs, and its contestants train the same run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench" / "bench_train.py"


@pytest.mark.slow
def test_the_bench_runs_and_all_contestants_come_to_the_same_loss():
    done = subprocess.run([sys.executable, str(BENCH), "--quick"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()]
    race = [row for row in rows if len(row) == 8 and row[1].replace(",", "").isdigit()]
    assert [row[0].split(",")[0] for row in race] == [
        "bare PyTorch loop", "lmbatch", "lmbatch", "Trainer", "Trainer + DeepSpeed (ZeRO 2)", "lmbatch + ZeRO 2",
    ]  # fmt: skip
    assert [float(row[-1]) for row in race] == pytest.approx([float(race[0][-1])] * 6, abs=2e-3)
    packing = {row[0]: float(row[1].rstrip("%")) for row in rows if len(row) == 4 and row[1].endswith("%")}
    assert packing["packed"] == 100.0
    assert packing["lines"] < packing["truncate"] < packing["best_fit"]
