"""What others make of an export: CTranslate2, and the tasks of lm-eval."""

from __future__ import annotations

import json
from pathlib import Path

import ctranslate2
import pytest
import torch
import yaml
from click.testing import CliRunner
from ctranslate2.converters import TransformersConverter
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmbatch.cli import cli
from lmbatch.errors import UsageError
from lmbatch.infer import TextGenerator, export_model
from lmbatch.train import train
from support.tiny_corpus import LETTERS, write_corpus
from support.tiny_run import tiny_config
from support.word_folder import write_word_model


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    store = write_corpus(folder / "store")
    result = train(tiny_config(store, folder, steps=12, save={"every": 12}, evaluate={"batches": 0}))
    return export_model(result.run_dir, folder / "export")


def test_ctranslate2_goes_on_as_transformers_does(export, tmp_path):
    """Greedily, token by token."""
    TransformersConverter(str(export)).convert(str(tmp_path / "converted"))
    engine = ctranslate2.Generator(str(tmp_path / "converted"), device="cpu", compute_type="float32")
    tokenizer, model = AutoTokenizer.from_pretrained(export), AutoModelForCausalLM.from_pretrained(export)
    for prompt in (LETTERS[:5], LETTERS[7:9], LETTERS[30:40]):
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        (found,) = engine.generate_batch(
            [tokenizer.convert_ids_to_tokens(ids)], max_length=15, sampling_topk=1, include_prompt_in_result=False
        )
        expected = model.generate(torch.tensor([ids]), max_new_tokens=15, do_sample=False)[0, len(ids) :].tolist()
        assert found.sequences_ids[0] == [token for token in expected if token != model.config.eos_token_id]
        assert len(found.sequences_ids[0]) > 3


def test_ctranslate2_takes_no_gpt2_with_a_padded_table(tmp_path):
    """It wants an entry for each row; the README of the recipes says so."""
    with pytest.raises(ValueError, match="Vocabulary has size"):
        TransformersConverter(str(write_word_model(tmp_path / "model"))).convert(str(tmp_path / "converted"))


@pytest.fixture
def task(tmp_path) -> Path:
    """Which of two continuations is the likelier one: the right one is what a model of the text says."""
    rows = [{"text": "国家", "right": "保护", "wrong": "月"}, {"text": "保护", "right": "人民", "wrong": "的"}]
    (tmp_path / "rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    settings = {
        "task": "tiny_choice", "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": str(tmp_path / "rows.json")}},
        "validation_split": "validation", "output_type": "multiple_choice", "doc_to_text": "{{text}}",
        "doc_to_choice": "{{[right, wrong]}}", "doc_to_target": 0, "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "tiny_choice.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return folder


def accuracy(model: Path, task: Path) -> float:
    arguments = ["evaluate", str(model), "--lm-eval", "tiny_choice", "--include", str(task), "--json"]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False)
    return json.loads(done.stdout[done.stdout.index("{") :])["lm_eval"]["tiny_choice"]["acc,none"]


def test_a_task_of_lm_eval_runs_on_a_word_vocabulary(task, tmp_path, monkeypatch):
    """The model is made to say 保护 after 国家 and 的 after 保护: one of two is right, whoever segments."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = write_word_model(tmp_path / "model", padding=0)
    teach(folder, [("国家", "保护"), ("保护", "的")])
    assert accuracy(folder, task) == 0.5
    teach(folder, [("国家", "保护"), ("保护", "人民")])
    assert accuracy(folder, task) == 1.0


def teach(folder: Path, pairs: list[tuple[str, str]]) -> None:
    generator = TextGenerator.from_folder(folder)
    model, tokenizer = generator.model, generator.tokenizer
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids = torch.tensor([tokenizer(f"{one}{two}")["input_ids"] for one, two in pairs])
    assert ids.shape == (2, 2)
    for _ in range(20):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


def test_a_task_that_is_none_is_refused(export):
    with pytest.raises(UsageError, match="knows no task no_such_task"):
        CliRunner().invoke(
            cli, ["evaluate", str(export), "--lm-eval", "no_such_task"], catch_exceptions=False, standalone_mode=False
        )
