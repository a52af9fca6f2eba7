"""Trackers get what the run's own record has, each step once; none of them can stop or hold up the run."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from lmbatch.config import TrainConfig, fingerprint
from lmbatch.config.load import build
from lmbatch.train import train
from lmbatch.train.metrics import evaluation_rows, read_metrics, training_rows
from lmbatch.train.recorder import Recorder
from lmbatch.train.records import read_records
from lmbatch.train.tracking.courier import Courier
from lmbatch.train.tracking.identity import identify
from lmbatch.train.tracking.public import public_config
from support.tiny_run import assert_equal_runs, call_after_step, tiny_config, tiny_settings, write_config
from support.tracked import swanlab_files, swanlab_scalars, wandb_files, wandb_rows

BOTH = {"swanlab": {"project": "small"}, "wandb": {"project": "small"}, "close_seconds": 9}
PROMPTS = ["一二", "天/地"]
RUN = {"steps": 12, "samples": {"every": 4, "prompts": PROMPTS, "generate": {"max_new_tokens": 4}}}


class DiedError(Exception):
    """What a run dies of."""


@pytest.fixture
def after_step(monkeypatch):
    monkeypatch.setattr(Recorder, "train", Recorder.train)
    return call_after_step


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A home folder, and a proxy that counts the connections of whoever wants to leave this machine."""
    home = tmp_path_factory.mktemp("home")
    calls: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.MonkeyPatch.context() as patch:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            patch.setenv(name, url)
        for name in ("NO_PROXY", "no_proxy", "WANDB_API_KEY", "SWANLAB_API_KEY"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(home))
        threading.Thread(target=_count, args=(server, calls), daemon=True).start()
        yield home, calls


def _count(server: socket.socket, calls: list[object]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        calls.append(connection.getpeername())
        connection.close()


@pytest.fixture(scope="module")
def resumed(store, outside, tmp_path_factory):
    """A run that dies after step 7 and is taken up again at 5, and one that was never interrupted."""
    import swanlab  # noqa: F401  (the run is so short that its trackers would still be importing at its end)
    import wandb  # noqa: F401

    base = tmp_path_factory.mktemp("tracked")
    original, before = Recorder.train, signal.getsignal(signal.SIGINT)

    def die():
        raise DiedError

    config = tiny_config(store, base, tensorboard=True, tracking=BOTH, **RUN)
    call_after_step(7, die)
    try:
        with pytest.raises(DiedError):
            train(config)
    finally:
        Recorder.train = original
    result = train(config)
    assert signal.getsignal(signal.SIGINT) is before
    return result


def test_every_step_reaches_wandb_once(resumed):
    files = wandb_files(resumed.run_dir / "tracking" / "wandb")
    assert len(files) == 2
    rows = [row for path in files for row in wandb_rows(path)]
    losses = {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}
    wanted = training_rows(read_metrics(resumed.run_dir))
    assert losses == {row["step"]: row["loss"] for row in wanted}
    assert Counter(row["step"] for row in rows if "train/loss" in row) == Counter(range(1, 13))
    assert {"train/lr", "train/grad_norm", "train/tokens_per_second"} <= set(rows[0])


def test_wandb_gets_the_evaluations_and_the_texts(resumed):
    folder = resumed.run_dir / "tracking" / "wandb"
    rows = [row for path in wandb_files(folder) for row in wandb_rows(path)]
    measured = {row["step"]: row["validation/bits_per_byte"] for row in rows if "validation/loss" in row}
    assert measured == {row["step"]: row["bits_per_byte"] for row in evaluation_rows(read_metrics(resumed.run_dir))}
    tables = [json.loads(path.read_text()) for path in folder.glob("*run-*/files/media/table/*.json")]
    found = sorted((tuple(row) for table in tables for row in table["data"]), key=lambda row: row[0])
    wanted = [(row["step"], row["prompt"], row["text"]) for row in read_records(resumed.run_dir / "samples.jsonl")]
    assert found == wanted
    assert len(wanted) == 6


def test_every_step_reaches_swanlab_once(resumed):
    files = swanlab_files(resumed.run_dir / "tracking" / "swanlab")
    assert len(files) == 2
    found = [row for path in files for row in swanlab_scalars(path)]
    rows = read_metrics(resumed.run_dir)
    for name, wanted in (("train/loss", training_rows(rows)), ("validation/loss", evaluation_rows(rows))):
        assert [(step, value) for key, step, value in found if key == name] == [(r["step"], r["loss"]) for r in wanted]
    texts = sorted(path.read_text() for path in resumed.run_dir.glob("tracking/swanlab/*/media/text/*.txt"))
    assert set(texts) == {row["text"] for row in read_records(resumed.run_dir / "samples.jsonl")}


def test_both_attempts_are_one_run_with_one_config(resumed):
    folder = resumed.run_dir / "tracking"
    name = (folder / "id").read_text().strip()
    assert {path.stem for path in wandb_files(folder / "wandb")} == {f"run-{name}"}
    assert {path.stem for path in swanlab_files(folder / "swanlab")} == {f"run-{name}"}
    for path in folder.glob("swanlab/*/files/config.yaml"):
        assert "n_embd" in path.read_text()


def test_tensorboard_goes_on_at_the_resumed_step(resumed):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(resumed.run_dir / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 13))


def test_nobody_leaves_the_machine_or_writes_into_the_home_folder(resumed, outside):
    home, calls = outside
    assert calls == []
    assert list(home.iterdir()) == []


def test_an_attempt_that_dies_early_lowers_no_mark(tmp_path):
    first = identify(tmp_path, {"train": 17, "validation": 16})
    second = identify(tmp_path, {"train": 15})
    assert second == first
    assert second.sent_to(tmp_path / "used-never") == {}
    (tmp_path / "used").mkdir()
    assert second.sent_to(tmp_path / "used") == {"train": 17, "validation": 16}


def warnings_of(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith(f"{name} gets no more")]


@pytest.fixture(scope="module")
def plain(store, tmp_path_factory):
    torch.set_num_threads(1)  # sums depend on it in their last bits
    return train(tiny_config(store, tmp_path_factory.mktemp("plain"), **RUN))


def test_trackers_whose_disk_refuses_are_given_up_with_one_warning_each(store, plain, tmp_path, caplog):
    folder = tmp_path / "tiny" / "tracking"
    folder.mkdir(parents=True)
    for name in ("swanlab", "wandb"):
        (folder / name).write_text("in the way")
    (tmp_path / "tiny" / "tensorboard").write_text("in the way")
    result = train(tiny_config(store, tmp_path, tensorboard=True, tracking=BOTH, **RUN))
    assert_equal_runs(result.run_dir, plain.run_dir)
    for name in ("swanlab", "wandb", "tensorboard"):
        (line,) = warnings_of(caplog, name)
        assert "FileExistsError" in line or "NotADirectoryError" in line


def test_a_library_that_is_not_installed_is_named_with_its_remedy(store, tmp_path, caplog, monkeypatch):
    for name in ("swanlab", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
    assert train(tiny_config(store, tmp_path, tracking=BOTH, steps=2)).exit_code == 0
    for name in ("swanlab", "wandb"):
        (line,) = warnings_of(caplog, name)
        assert "pip install 'lmbatch[tracking]'" in line


def test_without_a_network_a_process_trains_and_ends_as_ever(store, plain, tmp_path):
    tracking = {"swanlab": {"mode": "cloud"}, "wandb": {"mode": "online"}, "close_seconds": 0.5}
    config = write_config(tmp_path / "run.yaml", tiny_settings(store, tmp_path, tracking=tracking, **RUN))
    nobody = "http://127.0.0.1:9"
    environ = {
        **os.environ, "HOME": str(tmp_path), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
        "WANDB_BASE_URL": nobody, "WANDB_API_KEY": "5" * 40, "SWANLAB_API_HOST": nobody, "SWANLAB_API_KEY": "5" * 21,
    }  # fmt: skip
    command = [sys.executable, "-m", "lmbatch.train", "--config", str(config)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert_equal_runs(tmp_path / "tiny", plain.run_dir)
    for name in ("swanlab", "wandb"):
        assert done.stderr.count(f"{name} gets no more figures in this attempt, training goes on") == 1, done.stderr
    assert "5" * 21 not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("tracking", "name", "remedy"),
    [
        ({"swanlab": {"mode": "cloud"}}, "swanlab", "export SWANLAB_API_KEY"),
        ({"swanlab": {"mode": "local"}}, "swanlab", "swanlab[dashboard]"),
        ({"wandb": {"mode": "online"}}, "wandb", "export WANDB_API_KEY"),
    ],
)
def test_what_is_missing_for_a_mode_is_said_and_not_asked_for(store, tmp_path, caplog, outside, tracking, name, remedy):
    assert train(tiny_config(store, tmp_path, tracking=tracking, steps=2)).exit_code == 0
    (line,) = warnings_of(caplog, name)
    assert remedy in line


class Recording:
    """A tracker that keeps what it gets."""

    def __init__(self, *, until: threading.Event | None = None, fail_at: int | None = None) -> None:
        self.steps: list[int] = []
        self.closed = threading.Event()
        self._until, self._fail_at = until, fail_at

    def scalars(self, values, step):
        if self._until is not None:
            self._until.wait()
        if step == self._fail_at:
            raise OSError(28, "No space left on device")
        self.steps.append(step)

    def close(self):
        self.closed.set()


def send(courier: Courier, step: int) -> None:
    courier.send(lambda tracker: tracker.scalars({}, step))


def test_a_failure_is_the_last_thing_that_a_tracker_sees(caplog):
    tracker = Recording(fail_at=3)
    courier = Courier("full", lambda: tracker)
    for step in range(1, 6):
        send(courier, step)
    courier.finish()
    courier.join(time.monotonic() + 60)
    assert tracker.steps == [1, 2]
    assert tracker.closed.is_set()
    assert len(warnings_of(caplog, "full")) == 1
    assert "No space left" in warnings_of(caplog, "full")[0]


def test_a_tracker_that_hangs_holds_up_neither_a_step_nor_the_end(caplog):
    until = threading.Event()
    tracker = Recording(until=until)
    courier = Courier("hanging", lambda: tracker)
    for step in range(20_000):
        send(courier, step)
    courier.finish()
    courier.join(time.monotonic())
    assert tracker.steps == []
    assert [r.levelno for r in caplog.records if r.getMessage().startswith("hanging")] == [logging.WARNING]
    until.set()
    assert tracker.closed.wait(60)


def test_an_end_that_takes_too_long_is_left_to_itself(caplog):
    until = threading.Event()
    courier = Courier("slow", lambda: Recording(until=until))
    send(courier, 1)
    courier.finish()
    courier.join(time.monotonic())
    assert "tracking.close_seconds" in warnings_of(caplog, "slow")[0]
    until.set()


def test_tracking_decides_no_number(tmp_path):
    one, other = tiny_config("s", tmp_path), tiny_config("s", tmp_path, tracking=BOTH)
    assert fingerprint(one) == fingerprint(other)


def test_nothing_secret_is_shown_to_a_service(tmp_path):
    settings = tiny_settings("s3://id:hidden-1@bucket/shards?token=hidden-2", tmp_path)
    free = {"api_key": "hidden-3", "n_layer": 2, "deep": [{"password": "hidden-4"}]}
    settings["model"] = {"type": "gpt2", "config": free}
    shown = public_config(build(TrainConfig, settings, "x"))
    assert shown["data"]["store"] == "s3://bucket/shards"
    assert shown["model"]["config"]["n_layer"] == 2
    assert "hidden-" not in json.dumps(shown)


def test_the_folder_of_a_run_without_services_has_no_tracking(plain):
    assert not Path(plain.run_dir, "tracking").exists()
