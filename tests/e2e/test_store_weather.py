"""A whole job through a bad connection: several percent of all requests fail, in every way that they can.

The seed is random, and is told when a test fails; LMBATCH_TEST_SEED sets it.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lmbatch.report import compare_runs
from lmbatch.store import open_store
from lmbatch.train import train
from support.drive import contents, preprocess_here
from support.fault_proxy import WEATHER, FaultProxy
from support.tiny_run import tiny_config
from support.wudao import config_for, write_files, write_tokenizer

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("LMBATCH_TEST_SEED") or secrets.randbelow(10**6))
RATE = 0.06


def lmbatch(*arguments: str, cwd: Path) -> None:
    command = [sys.executable, "-m", "lmbatch", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=240)
    assert done.returncode == 0, f"seed {SEED}\n{done.stderr}"  # a string, which pytest does not shorten


def test_preprocessing_verifying_and_training_in_bad_weather(
    tmp_path: Path, s3_server, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "raw", files=3, documents=120)
    write_tokenizer(tmp_path / "tok")
    raw = open_store(f"{s3_uri}/raw")
    for path in (tmp_path / "raw").iterdir():
        raw.put_file(path.name, path)
    # No task may fail: each request is to succeed in the end.
    small = {"tasks": {"bytes": 5000}, "retries": 0, "corpus": {"raw": f"{s3_uri}/raw"}}
    preprocess_here(config_for(tmp_path, store=str(tmp_path / "quiet"), **small))
    uri, path = f"{s3_uri}/store", tmp_path / "config.yaml"
    config = config_for(tmp_path, store=uri, **small).model_dump(mode="json")
    path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")

    with FaultProxy(s3_server.settings.endpoint, patience=1.0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.weather(RATE, SEED)
        lmbatch("preprocess", "--config", str(path), "--workers", "2", cwd=tmp_path)
        lmbatch("verify", uri, cwd=tmp_path)
        for name, store in (("remote", uri), ("folder", str(tmp_path / "quiet"))):
            cache = {"cache": {"dir": str(tmp_path / f"cache-{name}")}}
            train(tiny_config(store, tmp_path, run={"name": name}, data=cache, steps=4, evaluate={"every": 4}))
        faults, requests = proxy.met, len(proxy.requests)
    assert set(faults) == {fault for kind in WEATHER.values() for fault in kind}, (SEED, faults)
    assert faults.total() > 0.04 * requests, (SEED, faults, requests)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.settings.endpoint)
    assert contents(open_store(uri)) == contents(open_store(str(tmp_path / "quiet"))), SEED
    assert compare_runs(tmp_path / "folder", tmp_path / "remote").equal, SEED
