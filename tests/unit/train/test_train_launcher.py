"""The environment of accelerate's launcher, without the launcher."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from lmbatch.errors import ConfigError, LaunchError
from lmbatch.train import launcher
from lmbatch.train.launcher import exec_training, launch_environment
from lmbatch.train.parent import NO_LAUNCHER

CONFIGS = Path(__file__).parents[3] / "configs" / "accelerate"
BASE = "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nnum_processes: 1\nnum_machines: 1\n"


def accelerates_own(path):
    parser = launch_command_parser()
    args, _, _ = _validate_launch_command(parser.parse_args(["--config_file", str(path), "-m", "lmbatch.train"]))
    return prepare_simple_launcher_cmd_env(args)[1]


@pytest.mark.parametrize("threads", [None, "3"])
@pytest.mark.parametrize(
    "text",
    [
        (CONFIGS / "single_3090.yaml").read_text(),
        (CONFIGS / "cpu.yaml").read_text(),
        "distributed_type: 'NO'\n",
        BASE + "mixed_precision: 'no'\n",
        BASE + "mixed_precision: fp16\ngpu_ids: '1'\ndebug: true\nenable_cpu_affinity: true\n",
        BASE
        + "dynamo_config:\n  dynamo_backend: INDUCTOR\n  dynamo_mode: reduce-overhead\n  dynamo_use_dynamic: true\n",
    ],
)
def test_it_is_what_accelerate_computes(tmp_path, monkeypatch, text, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    path = tmp_path / "a.yaml"
    path.write_text(text)
    before = dict(os.environ)
    expected = accelerates_own(path)
    assert before | launch_environment(path) == expected


def test_an_unquoted_no_means_no(tmp_path):
    (tmp_path / "a.yaml").write_text(BASE + "mixed_precision: no\n")
    assert launch_environment(tmp_path / "a.yaml")["ACCELERATE_MIXED_PRECISION"] == "no"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (BASE + "num_cpu_threads_per_process: 2\n", ConfigError, "num_cpu_threads_per_process"),
        (BASE + "mixed_precision: bf61\n", ConfigError, "bf61"),
        ("[]\n", ConfigError, "no accelerate config"),
        ("distributed_type: MULTI_GPU\nnum_processes: 2\n", LaunchError, "MULTI_GPU with 2 processes"),
        ("distributed_type: 'NO'\nnum_processes: 2\n", LaunchError, "2 processes"),
    ],
)
def test_what_cannot_be_started_is_refused(tmp_path, text, error, message):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(error, match=message):
        launch_environment(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        launch_environment(tmp_path / "none.yaml")


def test_the_process_becomes_the_training(monkeypatch):
    calls = []
    monkeypatch.setattr(launcher.os, "execve", lambda *call: calls.append(call))
    with contextlib.suppress(AssertionError):
        exec_training(CONFIGS / "cpu.yaml", ["--config", "f.yaml"])
    ((program, argv, environ),) = calls
    assert argv == [program, "-m", "lmbatch.train", "--config", "f.yaml"]
    assert environ["ACCELERATE_USE_CPU"] == "True"
    assert environ[NO_LAUNCHER] == "1"
