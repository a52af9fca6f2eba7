"""Machines whose clocks are days apart: the same bytes, and where a store must refuse, the clock is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lmbatch.preprocess import verify_store
from lmbatch.store import open_store
from support.clocks import DAY, wrong_clock
from support.drive import contents, preprocess_here
from support.wudao import config_for, write_files, write_tokenizer

LATE = Path(__file__).parent / "late"  # gives each worker a clock of its own


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_files(tmp_path / "raw", files=2, documents=60)
    write_tokenizer(tmp_path / "tok")
    return tmp_path


def lmbatch(base: Path, shift: int, store: str, **changes: Any) -> subprocess.CompletedProcess[str]:
    config = config_for(base, store=store, **changes).model_dump(mode="json")
    (base / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    command = [sys.executable, "-m", "lmbatch", "preprocess", "--config", str(base / "config.yaml"), "--workers", "3"]
    paths = os.pathsep.join(path for path in (str(LATE), os.environ.get("PYTHONPATH")) if path)
    environment = {**os.environ, **wrong_clock(base, shift), "PYTHONPATH": paths}
    return subprocess.run(command, cwd=base, env=environment, capture_output=True, text=True, check=False, timeout=200)


def test_a_clock_of_a_child_is_wrong(tmp_path: Path) -> None:
    code = "import os, sys, time; print(time.time(), os.stat(sys.executable).st_mtime, time.monotonic())"
    environments = (dict(os.environ), {**os.environ, **wrong_clock(tmp_path, -7 * DAY)})
    plain, wrong = (
        [float(word) for word in subprocess.check_output([sys.executable, "-c", code], env=environment).split()]
        for environment in environments
    )
    assert round((plain[0] - wrong[0]) / DAY) == 7
    assert plain[1] == wrong[1]
    assert abs(plain[2] - wrong[2]) < DAY


def test_clocks_days_apart_change_no_byte(base: Path) -> None:
    quiet = preprocess_here(config_for(base, store=str(base / "quiet")))
    done = lmbatch(base, -12 * DAY, str(base / "store"), heartbeat_seconds=0.05)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # nobody was thought to be silent or dead
    store = open_store(str(base / "store"))
    assert contents(store) == contents(open_store(str(base / "quiet")))
    assert verify_store(store).digest == quiet.digest


@pytest.mark.parametrize("shift", [-3 * DAY, 20 * 60])
def test_a_store_that_refuses_a_wrong_clock_is_told_by_that_name(base: Path, s3_uri: str, shift: int) -> None:
    done = lmbatch(base, shift, s3_uri)
    assert done.returncode == 1
    assert "RequestTimeTooSkewed" in done.stderr
    assert "set that machine's clock right" in done.stderr
    assert "Traceback" not in done.stderr


def test_workers_with_wrong_clocks_are_named_and_a_right_one_finishes(base: Path, s3_uri: str) -> None:
    """The driver's clock is right; each worker's is not, until somebody sets it."""
    done = lmbatch(base, 0, s3_uri, retries=0)
    assert done.returncode == 1
    assert "set that machine's clock right" in done.stderr
    quiet = preprocess_here(config_for(base, store=str(base / "quiet")))
    assert preprocess_here(config_for(base, store=s3_uri)) == quiet
    assert contents(open_store(s3_uri)) == contents(open_store(str(base / "quiet")))
