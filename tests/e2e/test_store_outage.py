"""The S3 server is killed (kill -9) in the middle of a job, and comes back: nobody has to do anything."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lmbatch.preprocess import verify_store
from lmbatch.store import open_store
from support.drive import contents, preprocess_here
from support.scripts import ROOT, load_script
from support.wudao import config_for, write_files, write_tokenizer


@pytest.fixture
def server(tmp_path: Path, s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server of this test's own; `s3_uri` has cleared the environment of everything else."""
    server = load_script(ROOT / "cluster" / "s3_server.py").S3Server(tmp_path / "server")
    try:
        for name, value in server.start().environment.items():
            monkeypatch.setenv(name, value)
        yield server
    finally:
        server.kill()
        server.stop(wipe=True)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("driver_dies", [False, True])
def test_a_server_that_is_killed_in_the_middle_and_started_again(
    tmp_path: Path, server: Any, driver_dies: bool
) -> None:
    write_files(tmp_path / "raw", files=3, documents=60)
    write_tokenizer(tmp_path / "tok")
    small = {"tasks": {"bytes": 4000}}
    quiet = preprocess_here(config_for(tmp_path, store=str(tmp_path / "quiet"), **small))
    uri = f"{server.settings.uri}/job"
    path = tmp_path / "config.yaml"
    config = config_for(tmp_path, store=uri, **small).model_dump(mode="json")
    path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    command = [sys.executable, "-m", "lmbatch", "preprocess", "--config", str(path), "--workers", "2"]
    store, log = open_store(uri), tmp_path / "driver.log"
    with log.open("w") as out:
        driver = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=out)
    try:
        wait_until(lambda: sum(1 for _ in store.list("receipts/")) >= 3)
        server.kill()
        logs = [log, *(tmp_path / "jobs").rglob("*.err")]
        wait_until(lambda: sum("attempt 2 for 300 s" in each.read_text() for each in logs) >= 2)
        assert driver.poll() is None
        if driver_dies:
            driver.kill()
            driver.wait()
        server.start()
        if driver_dies:
            subprocess.run(command, cwd=tmp_path, check=True, timeout=120, stdout=log.open("a"))
        else:
            assert driver.wait(120) == 0, log.read_text()
    finally:
        driver.kill()
        driver.wait()
    assert log.read_text().splitlines()[-1] == f"manifest: {uri}/manifest.json digest: {quiet.digest}"
    assert contents(store) == contents(open_store(str(tmp_path / "quiet")))
    assert verify_store(store).right
