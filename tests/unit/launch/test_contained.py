"""What the batch script asks on the host: the container's command, and whether a node can run it."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lmbatch.launch.contained import training_work
from lmbatch.launch.host import main
from support.tiny_run import tiny_config, tiny_settings, write_config


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A training config and a site that runs it with a docker that knows its image."""
    for folder in ("bin", "store"):
        (tmp_path / folder).mkdir()
    told = json.dumps([{"Architecture": os.uname().machine, "Config": {}}])
    (tmp_path / "bin" / "docker").write_text(f"#!/bin/sh\n[ $1 = run ] || echo '{told}'\n", encoding="utf-8")
    (tmp_path / "bin" / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-tell")
    site = {"name": "s", "container": {"runtime": "docker", "image": "lmbatch:train"}}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(site), encoding="utf-8")
    config = write_config(tmp_path / "c.yaml", tiny_settings(str(tmp_path / "store"), tmp_path / "my runs"))
    return ["--site", str(tmp_path / "site.yaml"), "--config", str(config)]


def words_of(told: str, command: str) -> list[str]:
    return [word.removeprefix(f"{command}:") for word in told.split("\0") if word.startswith(f"{command}:")]


def test_the_batch_script_gets_three_commands(
    files: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*files, "--set", "steps=7"]) == 0
    told = capsys.readouterr().out
    run = words_of(told, "run")
    assert (run[0], run[3:5], run[-2:]) == ("bash", ["lmbatch", "docker"], ["lmbatch:train", "python"])
    assert f"--mount=type=bind,source={tmp_path},destination={tmp_path}" in run  # the config's folder, all else in it
    assert f"--env=XDG_CACHE_HOME={tmp_path / 'cache'}" in run
    assert "do-not-tell" not in told
    assert words_of(told, "check") == [
        sys.executable, "-m", "lmbatch.launch.host", *files, "--set", "steps=7", "--check"
    ]  # fmt: skip
    shell, _, text, *_, runtime = words_of(told, "clean")
    assert (shell, runtime) == ("bash", "docker")
    assert 'containers_of "$SLURM_JOB_ID"' in text


def test_a_site_without_a_container_says_nothing(
    files: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "site.yaml").write_text("name: s\n", encoding="utf-8")
    assert (main(files), capsys.readouterr().out) == (0, "")


def test_what_no_node_can_mend_ends_the_job_with_a_remedy(
    files: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "store").rmdir()
    assert main(files) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "is to be mounted into the container, and is not there" in told.err
    assert "remedy: " in told.err


def test_an_srun_without_pyxis_ends_the_job_with_a_remedy(
    files: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """No node could tell: tasks of pyxis begin inside."""
    (tmp_path / "bin" / "srun").write_text("#!/bin/sh\necho '--container is all there is'\n", encoding="utf-8")
    (tmp_path / "bin" / "srun").chmod(0o755)
    site = {"name": "s", "container": {"runtime": "pyxis", "image": "lmbatch:train"}}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(site), encoding="utf-8")
    assert main(files) == 2
    assert "the plugin pyxis of srun is not there" in capsys.readouterr().err


def test_a_node_that_cannot_run_it_reports_to_the_judge(
    files: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin" / "docker").unlink()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name, value in (("SLURM_JOB_ID", "12"), ("SLURMD_NODENAME", "n7"), ("SLURM_NODEID", "1")):
        monkeypatch.setenv(name, value)
    assert main(files) == 0  # the batch script's node need not be one that trains
    assert main([*files, "--check"]) == 1
    (report,) = (tmp_path / "my runs" / "tiny" / "preflight" / "12-0").glob("rank-*.json")
    value = json.loads(report.read_text(encoding="utf-8"))
    assert value["node"] == "n7"
    assert "the program `docker` is not there" in value["problems"][0]


def test_a_folder_that_is_a_link_comes_with_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "scratch")
    work = training_work(tiny_config("s3://bucket/demo", tmp_path / "runs"), tmp_path / "c.yaml", {"HF_HOME": "/hf"})
    assert {tmp_path / "runs", tmp_path / "scratch"} <= set(work.written)
    assert dict(work.caches)["HF_HOME"] == Path("/hf")
    assert not any("bucket" in str(path) for path in work.folders)


def test_training_has_the_users_name_and_the_jobs_memory(tmp_path: Path) -> None:
    config = tiny_config("s3://bucket/demo", tmp_path / "runs")
    work = training_work(config, tmp_path / "c.yaml", {"SLURM_MEM_PER_NODE": "2048"})
    assert (work.login, work.memory) == (pwd.getpwuid(os.getuid()).pw_name, 2 * 2**30)
    work = training_work(config, tmp_path / "c.yaml", {"USER": "li"})
    assert (work.login, work.memory) == ("li", None)


@pytest.mark.parametrize("module", ["lmbatch.launch.host", "lmbatch.train.preflight"])
def test_the_host_needs_no_torch(module: str) -> None:
    code = f"import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None; import {module}"
    subprocess.run([sys.executable, "-c", code], check=True)
