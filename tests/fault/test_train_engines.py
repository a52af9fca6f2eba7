"""Real runs of several processes under every engine: the same losses, the same samples, one kind of checkpoint."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from lmbatch.train.attempts import read_attempts
from lmbatch.train.metrics import read_metrics, training_rows
from lmbatch.train.records import read_records
from support.rank_server import RankServer, logs
from support.shape_runs import SMALL, Runner, Shape, assert_bit_for_bit, assert_same_losses
from support.tiny_corpus import write_corpus
from support.tiny_run import newest_payload, saved_steps

pytestmark = pytest.mark.slow

# Name: processes, engine. The losses of all of them are those of the first.
SHAPES: dict[str, Shape] = {
    "alone": (1, {"name": "plain"}),
    "parallel": (2, {"name": "plain"}),
    "zero0": (2, {"name": "deepspeed", "zero_stage": 0}),
    "zero1": (2, {"name": "deepspeed", "zero_stage": 1}),
    "zero2": (2, {"name": "deepspeed", "zero_stage": 2}),
    "zero3": (2, {"name": "deepspeed", "zero_stage": 3, **SMALL}),
    "zero2 offloaded": (2, {"name": "deepspeed", "zero_stage": 2, "offload_optimizer": "cpu"}),
    "zero3 offloaded": (2, {"name": "deepspeed", "zero_stage": 3, **SMALL, "offload_optimizer": "cpu"}),
    "zero2 alone": (1, {"name": "deepspeed", "zero_stage": 2}),
    "zero3 alone": (1, {"name": "deepspeed", "zero_stage": 3, **SMALL}),
}
TOLERANCE = 5e-6


@pytest.fixture(scope="module")
def server():
    with RankServer() as started:
        yield started


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("tiny-store"))


@pytest.fixture(scope="module")
def run(server, store):
    return Runner(server, store, SHAPES)


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    """The folder of an undisturbed run of a shape."""
    done: dict[str, Path] = {}

    def get(shape: str) -> Path:
        if shape not in done:
            done[shape] = run(tmp_path_factory.mktemp("straight"), shape)
        return done[shape]

    return get


def at_step_5(run_dir: Path, folder: Path) -> None:
    """A copy of a run that died without notice after step 5's checkpoint."""
    shutil.copytree(run_dir, folder / "tiny", ignore=shutil.ignore_patterns("step-00000010", "lock"))
    assert saved_steps(folder / "tiny") == [5]


@pytest.mark.parametrize("shape", list(SHAPES)[1:])
def test_every_engine_gives_the_losses_of_one_process(finished, shape):
    alone, run_dir = finished("alone"), finished(shape)
    assert max(row["grad_norm"] for row in training_rows(read_metrics(alone))) > 0.5  # it does clip
    assert_same_losses(run_dir, alone, TOLERANCE)
    assert [row["text"] for row in read_records(run_dir / "samples.jsonl")] == [
        row["text"] for row in read_records(alone / "samples.jsonl")
    ]
    (attempt,) = read_attempts(run_dir)
    assert attempt.world_size == SHAPES[shape][0]


@pytest.mark.parametrize("shape", ["zero1", "zero3", "zero3 offloaded"])
def test_the_layout_of_a_checkpoint_is_that_of_the_plain_engine(finished, shape):
    plain, other = newest_payload(finished("alone")), newest_payload(finished(shape))
    assert json.loads(other["optimizer.json"]) == json.loads(plain["optimizer.json"])
    for name in ("model.safetensors", "optimizer.safetensors"):
        size = 8 + int.from_bytes(plain[name][:8], "little")
        assert other[name][:size] == plain[name][:size]
        assert len(other[name]) == len(plain[name])


# The others: test_train_shapes.py.
@pytest.mark.parametrize(
    ("before", "after"),
    [("zero2 offloaded", "zero0"), ("zero0", "zero3 offloaded"), ("zero3 alone", "zero2 offloaded")],
)
def test_a_run_goes_on_under_another_engine_and_number_of_processes(run, finished, tmp_path, before, after):
    at_step_5(finished(before), tmp_path)
    run_dir = run(tmp_path, after)
    assert_same_losses(run_dir, finished("alone"), 1e-5)
    assert read_attempts(run_dir)[-1].resumed_from == 5


@pytest.mark.parametrize("shape", ["zero0", "zero3 offloaded"])
def test_a_resume_in_the_same_shape_is_exact(run, finished, tmp_path, shape):
    at_step_5(finished(shape), tmp_path)
    assert_bit_for_bit(run(tmp_path, shape), finished(shape))


@pytest.mark.parametrize("shape", ["zero1", "zero3"])
def test_a_signal_to_one_process_saves_all_and_the_resume_is_exact(run, tmp_path, shape):
    dropout = {"model": {"config": {"resid_pdrop": 0.1, "embd_pdrop": 0.1}}}
    for name in ("straight", "stopped"):
        (tmp_path / name).mkdir()
    straight = run(tmp_path / "straight", shape, changes=dropout)
    run(tmp_path / "stopped", shape, changes=dropout, codes=[75], signal=[1, 3, int(signal.SIGUSR2)])
    assert saved_steps(tmp_path / "stopped" / "tiny") == [4]  # agreed upon with the next step
    assert_bit_for_bit(run(tmp_path / "stopped", shape, changes=dropout), straight)


@pytest.mark.parametrize(("shape", "what"), [("zero1", "gradient"), ("zero2", "loss"), ("zero3", "gradient")])
def test_a_batch_that_went_wrong_on_one_process_changes_nothing(run, finished, tmp_path, shape, what):
    at_step_5(finished(shape), tmp_path)
    run_dir = run(tmp_path, shape, codes=[1], poison=[1, 3, what])
    assert "step 8" in logs(tmp_path / "tiny.yaml")
    assert "nothing was changed or saved" in logs(tmp_path / "tiny.yaml")
    assert saved_steps(run_dir) == [5]
    assert_bit_for_bit(run(tmp_path, shape), finished(shape))


GUARDS = {"guards": {"nonfinite": "skip", "spike_factor": 2, "spike_window": 3, "on_spike": "skip"}}
SPOILT = {"1": "gradient", "3": "embedding", "5": "gradient", "7": "spike", "9": "embedding"}


@pytest.fixture(scope="module")
def guarded(run, tmp_path_factory):
    """A run of one process that leaves out the spoilt steps."""
    return run(tmp_path_factory.mktemp("guarded"), "alone", changes=GUARDS, spoil=[0, SPOILT])


@pytest.mark.parametrize("shape", list(SHAPES)[1:8])
def test_updates_are_left_out_alike_under_every_engine_and_after_a_resume(run, guarded, tmp_path, shape):
    for name in ("straight", "resumed"):
        (tmp_path / name).mkdir()
    spoil = [SHAPES[shape][0] - 1, SPOILT]  # one process has the bad batch, all leave the update out
    straight = run(tmp_path / "straight", shape, changes=GUARDS, spoil=spoil)
    rows, expected = training_rows(read_metrics(straight)), training_rows(read_metrics(guarded))
    assert [row["step"] for row in rows if row["skipped"]] == [int(step) for step in SPOILT]
    assert "of these suspect: [20, 21]" in logs(tmp_path / "straight" / "tiny.yaml")  # the other process's, by the main
    for row, other in zip(rows, expected, strict=True):
        if not row["skipped"]:
            assert row["loss"] == pytest.approx(other["loss"], rel=0, abs=TOLERANCE)
            assert row["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)
    shutil.copytree(straight, tmp_path / "resumed" / "tiny", ignore=shutil.ignore_patterns("step-00000010", "lock"))
    assert saved_steps(tmp_path / "resumed" / "tiny") == [6]
    assert_bit_for_bit(run(tmp_path / "resumed", shape, changes=GUARDS, spoil=spoil), straight)


def test_processes_that_find_different_norms_come_to_one_decision(run, tmp_path):
    changes = {"guards": {"grad_spike_factor": 5, "spike_window": 3, "on_spike": "skip"}}
    run_dir = run(tmp_path, "parallel", changes=changes, spoil=[1, {"5": "norm"}])
    assert [row["step"] for row in training_rows(read_metrics(run_dir)) if row["skipped"]] == []


@pytest.mark.parametrize("shape", ["parallel", "zero1", "zero3"])
def test_a_share_of_the_weights_that_is_not_finite_ends_every_process(run, tmp_path, shape):
    run_dir = run(tmp_path, shape, changes=GUARDS, codes=[1], spoil=[1, {"7": "weights"}])
    assert logs(tmp_path / "tiny.yaml").count("for the weights themselves are not finite; nothing was changed") == 2
    assert saved_steps(run_dir) == [5]


@pytest.mark.parametrize("shape", ["zero0", "zero2", "zero3"])
def test_a_run_whose_first_update_is_left_out_can_be_saved_and_resumed(run, finished, tmp_path, shape):
    changes = {**GUARDS, "steps": 1, "schedule": {"name": "constant", "warmup_steps": 0}}
    run_dir = run(tmp_path, shape, changes=changes, spoil=[1, {"1": "gradient"}])
    assert saved_steps(run_dir) == [1]
    longer = {**changes, "steps": 3, "run": {"accept_changes": True}}
    rows = training_rows(read_metrics(run(tmp_path, shape, changes=longer)))
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0]["skipped"] is not None


@pytest.mark.parametrize(("stage", "resumed"), [("MID_PAYLOAD", 5), ("AFTER_RECEIPT", 10)])
def test_kill_9_in_the_middle_of_a_save(run, finished, tmp_path, stage, resumed):
    at_step_5(finished("zero3"), tmp_path)
    run(tmp_path, "zero3", codes=[-signal.SIGKILL], kill_in_save=[0, stage])
    run_dir = run(tmp_path, "zero3")
    assert read_attempts(run_dir)[-1].resumed_from == resumed
    assert_bit_for_bit(run_dir, finished("zero3"))


def test_a_save_that_fails_ends_every_process(run, finished, tmp_path):
    at_step_5(finished("zero3"), tmp_path)
    run(tmp_path, "zero3", codes=[1], full_disk=[0])
    assert "No space left" in (tmp_path / "rank-0.log").read_text()
    assert "the main process could not save" in (tmp_path / "rank-1.log").read_text()
    assert_bit_for_bit(run(tmp_path, "zero3"), finished("zero3"))


def payloads(run_dir: Path) -> dict[str, bytes]:
    """The bytes of all files of all checkpoints, but for the state of Python's own generator, which nobody seeds."""
    files = run_dir.glob("checkpoints/step-*/attempt-*/*")
    return {f"{path.parts[-3]}/{path.name}": path.read_bytes() for path in files if path.name != "rng.json"}


@pytest.mark.parametrize("shape", ["parallel", "zero2", "zero3"])
def test_training_goes_on_while_a_checkpoint_is_gathered_and_written(run, tmp_path, shape):
    """Every byte is that of a run that waits for its checkpoints."""
    for name in ("waiting", "behind"):
        (tmp_path / name).mkdir()
    waiting = run(tmp_path / "waiting", shape, changes={"save": {"asynchronous": False}})
    behind = run(tmp_path / "behind", shape, hold_save=[0, 8])  # that of step 5
    assert saved_steps(behind) == [5, 10]
    assert payloads(behind) == payloads(waiting)
    assert_bit_for_bit(behind, waiting)


@pytest.mark.parametrize("shape", ["zero2", "zero3"])
def test_a_process_that_dies_while_it_hands_over_its_share_keeps_nobody_waiting(run, finished, tmp_path, shape):
    at_step_5(finished(shape), tmp_path)
    run_dir = run(tmp_path, shape, codes=[1], leave_in_gather=[1, 7])
    assert saved_steps(run_dir) == [5]
    assert_bit_for_bit(run(tmp_path, shape), finished(shape))


def test_bf16_is_that_of_the_plain_engine(run, tmp_path):
    changes = {"precision": "bf16", "steps": 4}
    rows = {}
    for shape in ("alone", "zero2", "zero3"):
        (tmp_path / shape).mkdir()
        rows[shape] = training_rows(read_metrics(run(tmp_path / shape, shape, changes=changes)))
    for shape in ("zero2", "zero3"):
        assert [row["loss"] for row in rows[shape]] == pytest.approx([row["loss"] for row in rows["alone"]], abs=1e-3)


def test_fp16_is_refused(run, tmp_path):
    run(tmp_path, "zero2", codes=[1], changes={"precision": "fp16"})
    assert "its loss scaler leaves out steps" in logs(tmp_path / "tiny.yaml")


def test_a_config_that_accelerate_was_given_another_way_is_refused(run, tmp_path):
    run(tmp_path, "parallel", codes=[1], environ={"ACCELERATE_USE_DEEPSPEED": "true"})
    assert "engine.name is plain" in logs(tmp_path / "tiny.yaml")
