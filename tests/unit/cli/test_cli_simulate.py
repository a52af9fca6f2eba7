"""`lmbatch simulate`, as a user starts it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lmbatch.cli import cli
from lmbatch.errors import UsageError
from support.tiny_run import tiny_settings, write_config
from support.wudao import config_for

SITE = "name: s\nexecutor: slurm\nslurm:\n  max_parallel: 8\n  batch_bytes: 2MiB\ntrain:\n  nodes: 4\n  minutes: 60\n"


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", *arguments], catch_exceptions=False)


@pytest.fixture
def site(tmp_path: Path) -> str:
    path = tmp_path / "site.yaml"
    path.write_text(SITE, encoding="utf-8")
    return str(path)


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    path = tmp_path / "corpus.json"
    path.write_text(config_for(tmp_path).model_dump_json(), encoding="utf-8")
    return str(path)


def test_a_corpus(corpus: str, site: str) -> None:
    options = ("--config", corpus, "--site", site, "--tasks", "40", "--task-bytes", "1MiB", "--speed", "1MiB")
    found = json.loads(simulate("preprocess", *options, "--json").stdout)
    assert (found["done"], found["tasks"], found["most_running"]) == (40, 40, 8)
    text = simulate("preprocess", *options).stdout
    assert "40 of 40 (40.0 MiB)" in text
    assert "commands to Slurm" in text


def test_a_run_with_several_intervals_between_saves(tmp_path: Path, site: str) -> None:
    config = str(write_config(tmp_path / "run.yaml", tiny_settings("/none", tmp_path, steps=300)))
    options = ("--config", config, "--site", site, "--step-seconds", "30", "--node-failure-hours", "4")
    found = json.loads(simulate("train", *options, "--save-every", "5", "--save-every", "100", "--json").stdout)
    assert [one["save_every"] for one in found] == [5, 100]
    assert [one["steps"] for one in found] == [300, 300]
    assert found[0]["steps_lost"] < found[1]["steps_lost"]
    assert "goodput" in simulate("train", *options, "--steps", "10").stdout


def test_what_cannot_be_is_said(tmp_path: Path, corpus: str, site: str) -> None:
    with pytest.raises(UsageError, match="--config, or --plan"):
        simulate("preprocess", "--site", site)
    with pytest.raises(UsageError, match="--speed"):
        simulate("preprocess", "--config", corpus, "--speed", "fast")
    with pytest.raises(UsageError, match="one task at least"):
        simulate("preprocess", "--config", corpus, "--tasks", "0")
