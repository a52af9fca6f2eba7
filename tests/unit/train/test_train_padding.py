"""Runs with a padded vocabulary: the numbers of a run without, and exports that know nothing of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from lmbatch.config import ModelConfig
from lmbatch.errors import ResumeError
from lmbatch.infer import export_model
from lmbatch.infer.loading import load_for_generation
from lmbatch.model import load_base, pin_base
from lmbatch.train import train
from lmbatch.train.metrics import evaluation_rows, read_metrics, training_rows
from lmbatch.train.records import read_records
from support.base_folder import write_base
from support.tiny_corpus import VOCABULARY
from support.tiny_run import assert_equal_runs, newest_payload, saved_steps, tiny_config

MULTIPLE = 48
PADDED = 96
SIZES = {"vocab_size": len(VOCABULARY), "sequence_length": 32, "eod_id": 0}
BEAMS = {"prompts": ["一", "日月"], "generate": {"max_new_tokens": 8, "temperature": 0, "num_beams": 3}}


def config_of(store, folder: Path, multiple: int | None, **changes):
    changes = {"samples": BEAMS, "steps": 10, **changes}
    return tiny_config(store, folder, model={"pad_vocab_to_multiple": multiple}, **changes)


@pytest.fixture(scope="module")
def runs(store, tmp_path_factory):
    """The folders of the same run without padding and with it."""
    return [train(config_of(store, tmp_path_factory.mktemp("run"), m)).run_dir for m in (None, MULTIPLE)]


def table(run_dir: Path, folder: Path) -> torch.Tensor:
    (folder / "weights").write_bytes(newest_payload(run_dir)["model.safetensors"])
    return load_file(folder / "weights")["transformer.wte.weight"]


def test_losses_norms_and_texts_are_those_of_a_run_without(runs):
    plain, padded = ([*training_rows(rows), *evaluation_rows(rows)] for rows in map(read_metrics, runs))
    assert [row["loss"] for row in padded] == pytest.approx([row["loss"] for row in plain], rel=0, abs=2e-6)
    assert [row["data"] for row in training_rows(padded)] == [row["data"] for row in training_rows(plain)]
    norms = [[row["grad_norm"] for row in training_rows(rows)] for rows in (padded, plain)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert read_records(runs[1] / "samples.jsonl") == read_records(runs[0] / "samples.jsonl")


def test_the_checkpoint_holds_the_additional_rows_untouched(runs, tmp_path):
    plain, padded = (table(run_dir, tmp_path) for run_dir in runs)
    assert padded.shape[0] == PADDED
    assert not padded[len(VOCABULARY) :].any()
    assert torch.allclose(padded[: len(VOCABULARY)], plain, rtol=0, atol=1e-4)


def test_the_export_has_the_true_vocabulary_and_the_trained_weights(runs, tmp_path):
    out = export_model(runs[1], tmp_path / "export")
    model = AutoModelForCausalLM.from_pretrained(out)
    assert AutoConfig.from_pretrained(out).vocab_size == len(VOCABULARY)
    assert model.get_input_embeddings().weight.shape[0] == len(VOCABULARY)
    assert torch.equal(model.get_input_embeddings().weight, table(runs[1], tmp_path)[: len(VOCABULARY)])
    assert "pad" not in (out / "config.json").read_text().replace("pad_token_id", "")
    generator = load_for_generation(runs[1])
    ids = torch.arange(1, 30)[None]
    with torch.no_grad():
        assert torch.equal(generator.model.eval()(ids).logits, model(ids).logits)


def test_a_resume_is_exact_and_another_multiple_is_refused(runs, store, tmp_path):
    shutil.copytree(runs[1], tmp_path / "tiny", ignore=shutil.ignore_patterns("step-00000010", "lock"))
    assert saved_steps(tmp_path / "tiny") == [5]
    with pytest.raises(ResumeError, match=r"model\.pad_vocab_to_multiple"):
        train(config_of(store, tmp_path, 64))
    train(config_of(store, tmp_path, MULTIPLE))
    assert_equal_runs(tmp_path / "tiny", runs[1])


@pytest.mark.parametrize(("rows", "multiple", "padded"), [(58, 64, 64), (64, 48, 96), (64, 64, 64), (64, None, 64)])
def test_a_folder_s_table_is_rounded_up_and_comes_out_as_it_was(store, tmp_path, rows, multiple, padded):
    """With 58 rows for 58 entries, and with 64."""
    assert len(VOCABULARY) == 58
    folder = write_base(tmp_path / "base", vocab_size=rows)
    changes = {"steps": 2, "save": {"every": 2}, "evaluate": {"batches": 0}}
    config = tiny_config(store, tmp_path, **changes)
    settings = {"type": "bloom", "base": str(folder), "pad_vocab_to_multiple": multiple}
    config = config.model_copy(update={"model": ModelConfig.model_validate(settings)})
    loaded = load_base(pin_base(config.model), **SIZES)
    assert loaded.get_input_embeddings().weight.shape[0] == padded
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(1, 30)[None]
    with torch.no_grad():
        assert torch.allclose(loaded.eval()(ids).logits, theirs(ids).logits, rtol=0, atol=1e-6)
    run_dir = train(config).run_dir
    shutil.rmtree(folder)
    assert train(config).step == 2
    out = AutoModelForCausalLM.from_pretrained(export_model(run_dir, tmp_path / "export"))
    assert out.config.vocab_size == out.get_input_embeddings().weight.shape[0] == rows
