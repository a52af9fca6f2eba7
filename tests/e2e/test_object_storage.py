"""Preprocessing into a real S3 server: the same digest as on disk, exact resumption, and no secret anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lmbatch.config.load import merge
from lmbatch.errors import ShardError
from lmbatch.preprocess import verify_store
from lmbatch.report import compare_runs
from lmbatch.store import open_store
from lmbatch.train import train
from lmbatch.train.metrics import read_metrics
from support.drive import WatchedStore, contents, preprocess_here
from support.tiny_corpus import write_corpus
from support.tiny_run import tiny_config
from support.wudao import config_for, write_files, write_tokenizer

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_files(tmp_path / "raw", files=2, documents=30)
    write_tokenizer(tmp_path / "tok")
    return tmp_path


def write_config(base: Path, store: str) -> Path:
    path = base / "config.yaml"
    settings = config_for(base, store=store).model_dump(mode="json")
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return path


def lmbatch(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lmbatch", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=240)


def test_the_digest_is_that_of_a_local_store_and_no_secret_is_written(base: Path, s3_uri: str) -> None:
    quiet = preprocess_here(config_for(base, store=str(base / "local")))
    done = lmbatch("preprocess", "--config", str(write_config(base, s3_uri)), "--workers", "2", cwd=base)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"manifest: {s3_uri}/manifest.json digest: {quiet.digest}"
    assert lmbatch("verify", s3_uri, cwd=base).returncode == 0
    remote = open_store(s3_uri)
    assert contents(remote) == contents(open_store(str(base / "local")))
    secrets = [os.environ["AWS_SECRET_ACCESS_KEY"].encode(), os.environ["AWS_ACCESS_KEY_ID"].encode()]
    written = [remote.read(info.key) for info in remote.list()]
    written += [path.read_bytes() for path in (base / "jobs").rglob("*") if path.is_file()]
    written += [done.stdout.encode(), done.stderr.encode()]
    assert len(written) > 20
    for data in written:
        assert not any(secret in data for secret in secrets)


def test_raw_files_may_lie_in_the_store_too(base: Path, s3_uri: str) -> None:
    raw = open_store(f"{s3_uri}/raw")
    for path in (base / "raw").glob("*.json"):
        raw.put_file(path.name, path)
    here = preprocess_here(config_for(base, store=str(base / "local")))
    there = preprocess_here(config_for(base, store=f"{s3_uri}/out", corpus={"raw": f"{s3_uri}/raw"}))
    assert there == here


@pytest.mark.parametrize(("number", "phase"), [(0, "after"), (5, "before"), (9, "after"), (-1, "before")])
def test_kills_at_publish_boundaries(base: Path, s3_uri: str, number: int, phase: str) -> None:
    """A plug pulled around the plan, payloads, a receipt and the manifest; the S3 client wants a process of its own."""
    config = write_config(base, f"{s3_uri}/store")
    writes: list[str] = []
    whole_config = config_for(base, store=str(base / "local"))
    watched = WatchedStore(
        open_store(whole_config.store), lambda n, when, op, key: writes.append(key) if when == "before" else None
    )
    preprocess_here(whole_config, watched)  # type: ignore[arg-type]
    script = (
        "import sys; from lmbatch.config import *; from support.drive import *\n"
        "config = load_config(PreprocessConfig, sys.argv[1])\n"
        "preprocess_here(config, WatchedStore(open_target(config), kill_at(int(sys.argv[2]), sys.argv[3])))"
    )
    arguments = [sys.executable, "-c", script, str(config), str(number % len(writes)), phase]
    killed = subprocess.run(arguments, cwd=TESTS, check=False, timeout=120)
    assert killed.returncode == -9
    again = lmbatch("preprocess", "--config", str(config), "--workers", "1", cwd=base)
    assert again.returncode == 0, again.stderr
    store = open_store(f"{s3_uri}/store")
    assert verify_store(store).right
    assert contents(store) == contents(open_store(whole_config.store))


def test_two_drivers_at_once_do_no_harm(base: Path, s3_uri: str) -> None:
    quiet = preprocess_here(config_for(base, store=str(base / "local")))
    config = str(write_config(base, s3_uri))
    command = [sys.executable, "-m", "lmbatch", "preprocess", "--config", config, "--workers", "1"]
    drivers = [subprocess.Popen(command, cwd=base, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [driver.communicate(timeout=240)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0]
    last = f"manifest: {s3_uri}/manifest.json digest: {quiet.digest}"
    assert [text.splitlines()[-1] for text in said] == [last, last]
    assert contents(open_store(s3_uri)) == contents(open_store(str(base / "local")))


def test_wrong_credentials_are_one_clear_message(base: Path, s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "this-is-not-the-secret")
    done = lmbatch("preprocess", "--config", str(write_config(base, s3_uri)), cwd=base)
    assert done.returncode == 1
    assert "this-is-not-the-secret" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "AWS_" in done.stderr


def test_training_from_the_store_is_training_from_a_folder_and_a_flipped_byte_is_never_trained_on(
    tmp_path: Path, s3_uri: str
) -> None:
    local = write_corpus(tmp_path / "store")
    remote = open_store(s3_uri)
    for path in sorted((tmp_path / "store").rglob("*")):
        if path.is_file():
            remote.put_file(str(path.relative_to(tmp_path / "store")), path)
    windowed = {"data": {"shuffle": "windowed", "window_shards": 2}, "steps": 8}
    for name, store in (("folder", local), ("remote", s3_uri)):
        settings = merge(windowed, {"run": {"name": name}, "data": {"cache": {"dir": str(tmp_path / f"cache-{name}")}}})
        train(tiny_config(store, tmp_path, **settings))
    assert compare_runs(tmp_path / "folder", tmp_path / "remote").equal

    shard = next(info.key for info in remote.list("shards/train/") if info.key.endswith(".bin"))
    data = bytearray(remote.read(shard))
    data[len(data) // 2] ^= 1
    remote.put(shard, bytes(data))
    fresh = {"cache": {"dir": str(tmp_path / "cache-fresh")}}
    with pytest.raises(ShardError, match=Path(shard).name):
        train(tiny_config(s3_uri, tmp_path, run={"name": "damaged"}, data=fresh))
    assert read_metrics(tmp_path / "damaged") == []
