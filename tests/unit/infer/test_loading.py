"""Whatever a user calls a model: an export, a run, a checkpoint of a run."""

from __future__ import annotations

import shutil

import pytest
import torch

from lmbatch.config import GenerateConfig
from lmbatch.errors import CheckpointError, TokenizerError, UsageError
from lmbatch.infer import TextGenerator, export_model, load_for_generation, loading

GREEDY = GenerateConfig(max_new_tokens=12, temperature=0)
PROMPTS = ["第一条 ", "Hello", ""]


def texts(path) -> list[str]:
    return load_for_generation(path).generate(PROMPTS, GREEDY)


def files_of(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_gives_what_its_export_gives_and_stays_as_it_is(run_dir, tmp_path):
    expected = TextGenerator.from_folder(export_model(run_dir, tmp_path / "export")).generate(PROMPTS, GREEDY)
    before = files_of(run_dir)
    assert texts(run_dir) == texts(str(tmp_path / "export")) == expected
    assert files_of(run_dir) == before


def test_a_step_can_be_named(run_dir, tmp_path):
    step = run_dir / "checkpoints" / "step-00000020"
    early = TextGenerator.from_folder(export_model(run_dir, tmp_path / "export", step=20)).generate(PROMPTS, GREEDY)
    (attempt,) = step.glob("attempt-*[0-9a-f]")
    assert texts(step) == texts(attempt) == early
    assert texts(run_dir / "checkpoints" / "step-00000060") != early


def test_a_relative_path_will_do(run_dir, monkeypatch):
    monkeypatch.chdir(run_dir / "checkpoints")
    assert texts("..") == texts("step-00000060") == texts(run_dir)


def test_a_damaged_checkpoint_is_passed_over_unless_it_was_named(run_dir, tmp_path, caplog):
    early = texts(run_dir / "checkpoints" / "step-00000020")
    (weights,) = run_dir.glob("checkpoints/step-00000060/*/model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert texts(run_dir) == early
    assert "step 60" in caplog.text
    with pytest.raises(CheckpointError, match="no valid checkpoint of step 60"):
        load_for_generation(weights.parent.parent)


def test_a_checkpoint_that_the_run_removes_meanwhile_makes_way_for_the_next(run_dir, monkeypatch):
    early = texts(run_dir / "checkpoints" / "step-00000020")
    real = loading.load_checkpoint

    def removed_first(run, checkpoint):
        if checkpoint.step == 60:
            shutil.rmtree(checkpoint.folder.parent)
        return real(run, checkpoint)

    monkeypatch.setattr(loading, "load_checkpoint", removed_first)
    assert texts(run_dir) == early


def test_nothing_is_made_up(run_dir, tmp_path):
    with pytest.raises(UsageError, match="no exported model"):
        load_for_generation(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        load_for_generation(tmp_path / "nothing")
    (run_dir / "tokenizer" / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(TokenizerError, match="not the file that the corpus was tokenized with"):
        load_for_generation(run_dir)


def test_a_run_without_a_checkpoint_says_so(run_dir):
    shutil.rmtree(run_dir / "checkpoints")
    (run_dir / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="none was saved yet"):
        load_for_generation(run_dir)


def test_an_export_without_a_tokenizer_is_refused(run_dir, tmp_path):
    export_model(run_dir, tmp_path / "export")
    (tmp_path / "export" / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=r"tokenizer.json or vocab.txt is missing"):
        load_for_generation(tmp_path / "export")


def test_precision_and_device_are_as_asked_for(run_dir):
    generator = load_for_generation(run_dir, device="cpu", dtype="bf16")
    assert generator.model.dtype == torch.bfloat16
    assert load_for_generation(run_dir).model.dtype == torch.float32
    with pytest.raises(UsageError, match="--device nonsense"):
        load_for_generation(run_dir, device="nonsense")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="--device cuda"):
            load_for_generation(run_dir, device="cuda")
