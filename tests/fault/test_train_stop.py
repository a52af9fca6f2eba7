"""Training is stopped and killed in real processes; what is resumed equals a straight run bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lmbatch.train import train
from lmbatch.train.attempts import DIED, read_attempts
from lmbatch.train.metrics import read_metrics, training_rows
from support.tiny_corpus import write_corpus
from support.tiny_run import (
    assert_equal_runs,
    run_child,
    saved_steps,
    tiny_config,
    tiny_settings,
    write_config,
)

ROOT = Path(__file__).parents[2]
ENVIRON = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("tiny-store"))


@pytest.fixture(scope="module")
def straight(store, tmp_path_factory):
    torch.set_num_threads(1)
    return train(tiny_config(store, tmp_path_factory.mktemp("straight"))).run_dir


@pytest.fixture
def config(store, tmp_path):
    return write_config(tmp_path / "tiny.yaml", tiny_settings(store, tmp_path))


def resume(store, tmp_path, straight):
    result = train(tiny_config(store, tmp_path))
    assert_equal_runs(result.run_dir, straight)
    return result


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_signal_saves_and_asks_to_be_run_again(store, straight, config, tmp_path, number):
    assert run_child(config, step=12, number=number) == 75
    assert saved_steps(tmp_path / "tiny") == [10, 12]
    result = resume(store, tmp_path, straight)
    stopped, finished = read_attempts(result.run_dir)
    assert (stopped.why, stopped.detail, stopped.last_saved_step) == ("stopped", number.name, 12)
    assert (finished.resumed_from, finished.why) == (12, "finished")


@pytest.mark.parametrize("step", [1, random.Random(os.getpid()).randrange(6, 19)])
def test_kill_9_costs_the_steps_since_the_last_checkpoint(store, straight, config, tmp_path, step):
    assert run_child(config, step=step, number=signal.SIGKILL) == -signal.SIGKILL
    due = (step - 1) // 5 * 5
    saved = ([0, *saved_steps(tmp_path / "tiny")])[-1]
    assert saved in {due, max(0, due - 5)}  # that of the last one due may have been on its way
    result = resume(store, tmp_path, straight)
    dead, alive = read_attempts(result.run_dir)
    assert (dead.why, dead.last_step, dead.steps_lost) == (DIED, step, step - saved)
    assert alive.resumed_from == saved


@pytest.mark.parametrize(("stage", "resumed"), [("MID_PAYLOAD", 5), ("BEFORE_RECEIPT", 5), ("AFTER_RECEIPT", 10)])
def test_kill_9_in_the_middle_of_a_save(store, straight, config, tmp_path, stage, resumed):
    assert run_child(config, step=10, number=signal.SIGKILL, stage=stage) == -signal.SIGKILL
    result = resume(store, tmp_path, straight)
    dead, alive = read_attempts(result.run_dir)
    assert dead.last_step >= 10  # training goes on while a thread behind it saves
    assert (dead.why, dead.steps_lost, alive.resumed_from) == (DIED, dead.last_step - resumed, resumed)


def test_a_signal_to_accelerates_launcher_saves_too(store, straight, config, tmp_path):
    """The real launcher; after step 6 the training process sends SIGTERM to its parent, as a user or Slurm would."""
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ROOT / "configs/accelerate/cpu.yaml"),
        "-m", "support.tiny_launched", "--config", str(config),
    ]  # fmt: skip
    launcher = subprocess.Popen(command, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # The pipe ends when the last process that holds it has ended: the launcher is long gone by then.
    _, errors = launcher.communicate()
    assert launcher.returncode == -signal.SIGTERM, errors
    result = resume(store, tmp_path, straight)
    stopped, finished = read_attempts(result.run_dir)
    assert (stopped.why, stopped.detail) == ("stopped", "SIGTERM"), errors
    assert finished.resumed_from == stopped.last_saved_step == stopped.last_step >= 6
    assert has_ended(stopped.pid)


def test_a_signal_during_the_start_up_is_honoured(config, tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-m", "lmbatch.train", "--config", str(config)],
        env=ENVIRON, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_handler(child, signal.SIGTERM)
    child.terminate()
    _, errors = child.communicate()
    assert child.returncode == 75, errors
    assert "stopped by SIGTERM at step 0" in errors
    assert not (tmp_path / "tiny" / "checkpoints").exists()


def has_ended(pid: int) -> bool:
    """Is the process gone, or a zombie that nobody has waited for?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_for_handler(child: subprocess.Popen, number: signal.Signals) -> None:
    """Until the process catches the signal (``SigCgt`` in /proc/PID/status)."""
    while child.poll() is None:
        status = Path(f"/proc/{child.pid}/status").read_text()
        caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
        if caught >> (number - 1) & 1:
            return


def test_two_processes_stop_together_and_read_the_same_samples(store, tmp_path):
    """torchrun with two processes on the CPU; a signal to one of them stops both after the same step."""
    still = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    changes = {"model": {"config": still}, "optimizer": {"clip_norm": None}}
    alone = train(tiny_config(store, tmp_path / "alone", **changes)).run_dir
    settings = tiny_settings(store, tmp_path, **changes)
    config = write_config(tmp_path / "tiny.yaml", settings)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "support.tiny_launched", "--config", str(config),
    ]  # fmt: skip
    run = subprocess.run(command, env={**ENVIRON, "ACCELERATE_USE_CPU": "true"}, capture_output=True, text=True)
    (attempt,) = read_attempts(tmp_path / "tiny")
    assert (attempt.why, attempt.world_size) == ("stopped", 2), run.stderr
    two, one = training_rows(read_metrics(tmp_path / "tiny")), training_rows(read_metrics(alone))
    assert two[-1]["step"] == attempt.last_saved_step < 20
    keys = ("step", "samples", "data", "lr")
    for left, right in zip(two, one, strict=False):
        assert [left[key] for key in keys] == [right[key] for key in keys]
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-5)
    result = train(tiny_config(store, tmp_path, **changes))
    assert (result.resumed_from, result.exit_code) == (attempt.last_saved_step, 0)
    after = training_rows(read_metrics(result.run_dir))
    assert [row["data"] for row in after] == [row["data"] for row in one]


def test_the_command_tells_an_error_in_one_message(tmp_path, config):
    command = [sys.executable, "-m", "lmbatch.train", "--config", str(config), "--set", "optimzer.lr=1"]
    run = subprocess.run(command, env=ENVIRON, capture_output=True, text=True)
    assert run.returncode == 2
    assert "unknown key `optimzer`, did you mean `optimizer`?" in run.stderr
    assert "Traceback" not in run.stderr
