"""Whole runs of a tiny model on the CPU: what they write, how they resume, what they refuse."""

from __future__ import annotations

import json
import math

import pytest
import torch

from lmbatch.checkpoint import RunLock
from lmbatch.config import TrainConfig, load_config
from lmbatch.errors import ConfigError, NonFiniteLossError, ResumeError, RunBusyError, TokenizerError
from lmbatch.store import parse_manifest
from lmbatch.train import session, train
from lmbatch.train.attempts import read_attempts
from lmbatch.train.metrics import evaluation_rows, read_metrics, reproducible, training_rows
from lmbatch.train.recorder import Recorder
from lmbatch.train.records import read_records
from lmbatch.train.stop import STOP_FILE, StopFlag
from support.tiny_corpus import VOCABULARY, write_corpus, write_tokenizer
from support.tiny_run import assert_equal_runs, call_after_step, newest_payload, saved_steps, tiny_config


@pytest.fixture
def after_step(monkeypatch):
    """``after_step(n, action)``: call something once the row of step n is recorded."""
    monkeypatch.setattr(Recorder, "train", Recorder.train)
    return call_after_step


def rows_of(result):
    return read_metrics(result.run_dir)


def test_a_run_learns_and_writes_every_row(straight):
    rows = training_rows(rows_of(straight))
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert [row["samples"] for row in rows] == [[8 * n, 8 * n + 8] for n in range(20)]
    assert rows[0]["loss"] == pytest.approx(math.log(len(VOCABULARY)), rel=0.05)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.3
    assert straight.loss == rows[-1]["loss"]
    assert len({row["data"] for row in rows}) == 20
    assert rows[0]["tokens"] == 8 * 32
    assert rows[0]["mfu"] is None
    assert (straight.step, straight.total_steps, straight.exit_code) == (20, 20, 0)


def test_evaluation_is_that_of_the_validation_split(straight):
    rows = evaluation_rows(rows_of(straight))
    assert [row["step"] for row in rows] == [8, 16, 20]
    last = rows[-1]
    assert last["loss"] < rows[0]["loss"]
    assert last["perplexity"] == pytest.approx(math.exp(last["loss"]))
    manifest = parse_manifest((straight.run_dir / "manifest.json").read_bytes(), "m")
    text_bytes = sum(shard.text_bytes for shard in manifest.of("validation"))
    expected = last["loss"] / math.log(2) * manifest.tokens("validation") / text_bytes
    assert last["bits_per_byte"] == pytest.approx(expected)
    assert last["tokens"] == 3 * 4 * 32


def test_the_run_folder_tells_what_was_run(straight, store):
    folder = straight.run_dir
    again = load_config(TrainConfig, folder / "config.yaml")
    assert again.optimizer.lr == 0.01
    assert (folder / "tokenizer" / "tokenizer.json").read_bytes()
    model = json.loads((folder / "model.json").read_text())
    assert model["config"]["vocab_size"] == len(VOCABULARY)
    assert model["parameters"]["total"] > 20_000
    assert saved_steps(folder) == [15, 20]
    (attempt,) = read_attempts(folder)
    assert (attempt.why, attempt.last_step, attempt.last_saved_step, attempt.resumed_from) == ("finished", 20, 20, 0)
    assert attempt.seconds_to_first_step > 0


def test_a_finished_run_has_nothing_left_to_do(store, tmp_path):
    config = tiny_config(store, tmp_path, steps=3)
    first = train(config)
    before, payload = rows_of(first), newest_payload(first.run_dir)
    second = train(config)
    assert (second.step, second.resumed_from, second.loss, second.exit_code) == (3, 3, None, 0)
    assert rows_of(second) == before
    assert newest_payload(second.run_dir) == payload
    assert [a.why for a in read_attempts(first.run_dir)] == ["finished", "finished"]


@pytest.mark.parametrize("step", [1, 7, 10, 20])
def test_a_stopped_and_resumed_run_is_the_straight_one_bit_for_bit(store, straight, tmp_path, after_step, step):
    config, stop = tiny_config(store, tmp_path), StopFlag()
    after_step(step, lambda: stop.request("SIGTERM"))
    first = train(config, stop)
    assert (first.stopped, first.exit_code, first.step) == ("SIGTERM", 75, step)
    assert saved_steps(first.run_dir)[-1] == step
    second = train(config)
    assert (second.resumed_from, second.exit_code) == (step, 0)
    assert_equal_runs(first.run_dir, straight.run_dir)


def test_the_stop_file_is_honoured_once(store, straight, tmp_path, after_step):
    config = tiny_config(store, tmp_path)
    folder = tmp_path / "tiny"
    after_step(4, (folder / "stop").touch)
    first = train(config)
    assert (first.stopped, first.step) == (STOP_FILE, 4)
    assert not (folder / "stop").exists()
    assert train(config).exit_code == 0
    assert [(a.why, a.detail) for a in read_attempts(folder)] == [("stopped", STOP_FILE), ("finished", None)]
    assert_equal_runs(folder, straight.run_dir)


def test_a_stop_before_the_first_step_saves_nothing(store, tmp_path):
    stop = StopFlag()
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "stop").touch()
    result = train(tiny_config(store, tmp_path), stop)
    assert (result.stopped, result.step, result.exit_code) == (STOP_FILE, 0, 75)
    assert not (folder / "checkpoints").exists()


def test_a_stop_during_evaluation_leaves_the_evaluation_to_the_next_attempt(store, straight, tmp_path, monkeypatch):
    from lmbatch.train.engine import Engine

    config, stop = tiny_config(store, tmp_path), StopFlag()
    original = Engine.summed_loss
    monkeypatch.setattr(Engine, "summed_loss", lambda *a: (stop.request("SIGUSR2"), original(*a))[1])
    first = train(config, stop)
    monkeypatch.undo()
    assert (first.stopped, first.step) == ("SIGUSR2", 8)
    assert evaluation_rows(rows_of(first)) == []
    train(config)
    assert_equal_runs(first.run_dir, straight.run_dir)


def test_a_stop_between_two_sample_texts_leaves_them_to_the_next_attempt(store, tmp_path, monkeypatch):
    from lmbatch.infer import TextGenerator

    prompts = {"every": 5, "prompts": ["一二", "人"], "generate": {"max_new_tokens": 4}}
    config, stop = tiny_config(store, tmp_path, samples=prompts, steps=6), StopFlag()
    original = TextGenerator.generate
    monkeypatch.setattr(TextGenerator, "generate", lambda *a: (stop.request("SIGTERM"), original(*a))[1])
    first = train(config, stop)
    monkeypatch.undo()
    assert (first.stopped, first.step) == ("SIGTERM", 5)
    assert read_records(first.run_dir / "samples.jsonl") == []
    train(config)
    samples = read_records(first.run_dir / "samples.jsonl")
    assert [(s["step"], s["prompt"]) for s in samples] == [(5, "一二"), (5, "人"), (6, "一二"), (6, "人")]
    assert all(s["text"].startswith(s["prompt"]) for s in samples)


def test_what_happens_between_two_steps_does_not_disturb_the_training(store, straight, tmp_path, after_step):
    after_step(5, lambda: torch.rand(7))
    busy = tiny_config(
        store, tmp_path, evaluate={"every": 3}, samples={"every": 4, "prompts": ["一"], "generate": {"seed": 5}}
    )
    rows = training_rows(rows_of(train(busy)))
    assert reproducible(rows) == reproducible(training_rows(rows_of(straight)))


def test_micro_batches_change_the_speed_and_not_the_numbers(store, tmp_path):
    quiet = {"config": {"n_layer": 2, "n_embd": 32, "n_head": 2, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}}
    runs = [
        training_rows(rows_of(train(tiny_config(store, tmp_path / str(m), model=quiet, batch={"micro": m}, steps=8))))
        for m in (8, 2)
    ]
    for big, small in zip(*runs, strict=True):
        assert small["data"] == big["data"]
        assert small["loss"] == pytest.approx(big["loss"], rel=1e-4)
        assert small["grad_norm"] == pytest.approx(big["grad_norm"], rel=1e-2)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_another_architecture_needs_only_a_config(store, tmp_path, kind):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = {"type": kind, "config": {**sizes, "num_key_value_heads": 1}}
    settings = tiny_config(store, tmp_path, steps=12).model_dump() | {"model": model}
    rows = training_rows(rows_of(train(TrainConfig.model_validate(settings))))
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.2


def test_tensorboard_gets_the_figures(store, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(tiny_config(store, tmp_path, steps=4, tensorboard=True, peak_flops=1e12))
    events = EventAccumulator(str(result.run_dir / "tensorboard"))
    events.Reload()
    names = {"loss", "lr", "grad_norm", "tokens_per_second", "mfu"}
    assert set(events.Tags()["scalars"]) >= {f"train/{name}" for name in names} | {"validation/loss"}
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    flops = json.loads((result.run_dir / "model.json").read_text())["flops_per_token"]
    for row in training_rows(rows_of(result)):
        assert row["mfu"] == pytest.approx(row["tokens_per_second"] * flops / 1e12)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_loss_that_is_no_number_stops_the_run_with_the_batch_named(store, tmp_path):
    config = tiny_config(store, tmp_path, optimizer={"lr": 1e30, "clip_norm": None}, schedule={"warmup_steps": 0})
    with pytest.raises(NonFiniteLossError, match=r"step 2: the loss is nan") as caught:
        train(config)
    assert "samples [8, 16)" in str(caught.value)
    assert "tiny.json at " in str(caught.value)
    assert "(id doc-" in str(caught.value)
    folder = tmp_path / "tiny"
    assert saved_steps(folder) == []
    assert [row["step"] for row in training_rows(read_metrics(folder))] == [1]
    (attempt,) = read_attempts(folder)
    assert (attempt.why, attempt.last_step, attempt.steps_lost) == ("failed", 1, 1)
    assert attempt.detail.startswith("NonFiniteLossError: step 2")


def test_a_gradient_that_is_no_number_changes_nothing(store, tmp_path, monkeypatch):
    from lmbatch.train.engine import Engine

    config = tiny_config(store, tmp_path, save={"every": 2})
    original, applied = Engine._clip, []
    monkeypatch.setattr(Engine, "_clip", lambda self: original(self) * (math.inf if len(applied) == 3 else 1))
    monkeypatch.setattr(Engine, "apply", lambda self, lr, apply=Engine.apply: (applied.append(lr), apply(self, lr)))
    with pytest.raises(NonFiniteLossError, match=r"step 4: the gradient norm is inf"):
        train(config)
    assert len(applied) == 3
    assert saved_steps(tmp_path / "tiny") == [2]


def test_another_corpus_is_refused(store, tmp_path):
    other = write_corpus(tmp_path / "other", seed=9)
    train(tiny_config(store, tmp_path, steps=2))
    changed = tiny_config(other, tmp_path, steps=2, run={"accept_changes": True})
    with pytest.raises(ResumeError, match="was trained on the corpus sha256:"):
        train(changed)


def test_changed_settings_are_refused_by_name_unless_accepted(store, tmp_path):
    train(tiny_config(store, tmp_path, steps=2))
    changes = {"steps": 4, "optimizer": {"lr": 0.02, "weight_decay": 0.3}}
    with pytest.raises(
        ResumeError, match=r"optimizer\.lr: 0\.01 → 0\.02; optimizer\.weight_decay: 0\.1 → 0\.3; steps: 2 → 4"
    ) as caught:
        train(tiny_config(store, tmp_path, **changes))
    assert "run.accept_changes" in caught.value.remedy
    result = train(tiny_config(store, tmp_path, **changes, run={"accept_changes": True}))
    assert (result.resumed_from, result.step) == (2, 4)
    assert training_rows(rows_of(result))[-2]["lr"] == 0.02
    assert b'"weight_decay": 0.3' in newest_payload(result.run_dir)["optimizer.json"]


def test_operational_settings_may_change(store, tmp_path):
    train(tiny_config(store, tmp_path, steps=2))
    result = train(tiny_config(store, tmp_path, steps=2, batch={"micro": 2}, save={"every": 1}, log_every=1))
    assert result.exit_code == 0


def test_a_damaged_checkpoint_is_passed_over(store, straight, tmp_path, after_step):
    config, stop = tiny_config(store, tmp_path), StopFlag()
    after_step(12, lambda: stop.request("SIGTERM"))
    folder = train(config, stop).run_dir
    assert saved_steps(folder) == [10, 12]
    flip_a_byte(next(folder.glob("checkpoints/step-00000012/*/model.safetensors")))
    second = train(config)
    assert second.resumed_from == 10
    assert read_attempts(folder)[1].steps_lost == 0
    assert_equal_runs(folder, straight.run_dir)


def test_with_damaged_checkpoints_only_the_run_does_not_start_again_silently(store, tmp_path):
    config = tiny_config(store, tmp_path, steps=6)
    folder = train(config).run_dir
    for path in folder.glob("checkpoints/*/*/model.safetensors"):
        flip_a_byte(path)
    with pytest.raises(ResumeError, match="no checkpoint of this run is valid: step 6"):
        train(config)


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_checkpoint_of_a_newer_version_is_refused_before_a_step_is_taken(store, tmp_path):
    result = train(tiny_config(store, tmp_path, steps=10))
    receipt = result.run_dir / "checkpoints/step-00000010/receipt.json"
    receipt.write_bytes(receipt.read_bytes().replace(b'"format_version": 1', b'"format_version": 2'))
    with pytest.raises(ResumeError, match=r"step-00000010/receipt\.json: written in checkpoint format 2"):
        train(tiny_config(store, tmp_path, steps=10))
    assert len(training_rows(rows_of(result))) == 10


def test_a_run_folder_that_is_in_use_is_refused(store, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "LOCK_WAIT_SECONDS", 0)
    config = tiny_config(store, tmp_path)
    with RunLock(tmp_path / "tiny"), pytest.raises(RunBusyError):
        train(config)
    assert read_attempts(tmp_path / "tiny") == []


def test_another_tokenizer_is_refused_and_the_right_one_is_not(store, tmp_path):
    right = write_tokenizer(tmp_path / "right")
    assert train(tiny_config(store, tmp_path, steps=1, tokenizer=str(right))).exit_code == 0
    wrong = write_tokenizer(tmp_path / "wrong") / "tokenizer.json"
    wrong.write_text(wrong.read_text(encoding="utf-8").replace("一", "壹"), encoding="utf-8")
    with pytest.raises(TokenizerError, match="the shards were written with"):
        train(tiny_config(store, tmp_path, run={"name": "other"}, tokenizer=str(wrong.parent)))


def test_a_tokenizer_file_that_is_not_the_manifests_is_refused(tmp_path):
    store = write_corpus(tmp_path / "store", documents=40)
    (tmp_path / "store" / "tokenizer" / "tokenizer_config.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json: not the bytes"):
        train(tiny_config(store, tmp_path))


def test_a_batch_that_cannot_be_cut_is_refused(store, tmp_path):
    with pytest.raises(ConfigError, match="8"):
        train(tiny_config(store, tmp_path, batch={"micro": 3}))


def test_without_a_validation_split_there_is_no_evaluation(tmp_path, caplog):
    store = write_corpus(tmp_path / "store", documents=40, validation=0)
    result = train(tiny_config(store, tmp_path, steps=1))
    assert evaluation_rows(rows_of(result)) == []
    assert "no evaluation" in caplog.text
