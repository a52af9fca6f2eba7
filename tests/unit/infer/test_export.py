"""Exporting: a folder that plain transformers loads, with the very numbers of the trained model."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmbatch.checkpoint import Checkpoints
from lmbatch.errors import CheckpointError, TokenizerError, UsageError
from lmbatch.infer import export_model
from lmbatch.store import LocalStore

IDS = torch.tensor([[5, 80, 299, 0, 17, 33, 250, 1]])


def test_plain_transformers_gives_the_trained_models_logits_bit_for_bit(run_dir, tmp_path, model, tokenizer_folder):
    out = export_model(run_dir, tmp_path / "export")
    loaded = AutoModelForCausalLM.from_pretrained(out)
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name

    tokenizer, original = (AutoTokenizer.from_pretrained(folder) for folder in (out, tokenizer_folder))
    text = "第一条 为了 保护 Hello\n\n  𠮷 ok"
    assert tokenizer(text)["input_ids"] == original(text)["input_ids"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_others_may_read_all_of_an_export_that_may_read_one_file(run_dir, tmp_path):
    before = os.umask(0o022)
    try:
        out = export_model(run_dir, tmp_path / "export")
    finally:
        os.umask(before)
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in out.iterdir()} == dict.fromkeys(
        (path.name for path in out.iterdir()), "0o644"
    )


def test_the_configs_name_vocabulary_context_and_special_ids(run_dir, tmp_path, manifest):
    out = export_model(run_dir, tmp_path / "export")
    config = json.loads((out / "config.json").read_text())
    assert (config["vocab_size"], config["n_positions"]) == (manifest.tokenizer.size, 48)
    assert (config["eos_token_id"], config["bos_token_id"], config["use_cache"]) == (0, 0, True)
    generation = json.loads((out / "generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["bos_token_id"], generation["pad_token_id"]) == (0, 0, 0)
    assert json.loads((out / "tokenizer_config.json").read_text())["model_max_length"] == 48


def test_the_model_card_tells_what_it_is_and_nothing_of_this_machine(run_dir, tmp_path, manifest, config):
    out = export_model(run_dir, tmp_path / "export")
    card = (out / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "transformers"
    assert front["tags"] == ["lmbatch", "gpt2"]
    for said in (manifest.digest, "`laws`", "sha256:tokenizer", "| Steps | 60 |", "| Tokens seen | 11,520 |",
                 "0.1250 nats per token at step 60", "2.2500 nats per token at step 40", "| Precision | fp32 |",
                 "exported with 0.1.0", "AutoModelForCausalLM.from_pretrained"):  # fmt: skip
        assert said in card
    for path in out.iterdir():
        if path.suffix in (".json", ".md"):
            text = path.read_text(encoding="utf-8")
            assert "/secret/place" not in text
            assert str(tmp_path) not in text
            assert "/tmp" not in text


def test_a_run_without_metrics_exports_too(run_dir, tmp_path):
    (run_dir / "metrics.jsonl").unlink()
    out = export_model(run_dir, tmp_path / "export")
    assert "| Training loss | not measured |" in (out / "README.md").read_text()


def test_a_step_can_be_named(run_dir, tmp_path, model):
    out = export_model(run_dir, tmp_path / "export", step=20)
    assert "| Steps | 20 |" in (out / "README.md").read_text()
    assert "4.5000 nats per token at step 20" in (out / "README.md").read_text()
    with torch.no_grad():
        assert not torch.equal(AutoModelForCausalLM.from_pretrained(out)(IDS).logits, model(IDS).logits)
    with pytest.raises(CheckpointError, match="no valid checkpoint of step 7"):
        export_model(run_dir, tmp_path / "export", step=7)


def test_a_damaged_checkpoint_is_passed_over(run_dir, tmp_path, caplog):
    newest = Checkpoints(LocalStore(run_dir)).at(60).folder / "model.safetensors"
    data = newest.read_bytes()
    newest.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    out = export_model(run_dir, tmp_path / "export")
    assert "| Steps | 20 |" in (out / "README.md").read_text()
    assert "bytes were changed" in caplog.text


def test_a_run_without_a_valid_checkpoint_says_why(run_dir, tmp_path):
    for path in run_dir.rglob("model.safetensors"):
        path.unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        export_model(run_dir, tmp_path / "export")


def test_exporting_again_replaces_the_export_and_leaves_nothing_beside_it(run_dir, tmp_path):
    out = tmp_path / "deep" / "export"
    export_model(run_dir, out, step=20)
    (out / "left.txt").touch()
    export_model(run_dir, out)
    assert "| Steps | 60 |" in (out / "README.md").read_text()
    assert not (out / "left.txt").exists()
    assert [path.name for path in out.parent.iterdir()] == ["export"]


def test_a_folder_that_is_no_export_is_never_replaced(run_dir, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="no earlier export"):
        export_model(run_dir, tmp_path / "home")
    assert (tmp_path / "home" / "thesis.txt").exists()


def test_an_export_that_fails_leaves_the_earlier_one(run_dir, tmp_path):
    out = export_model(run_dir, tmp_path / "export", step=20)
    (run_dir / "tokenizer" / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"tokenizer.json: is not the file"):
        export_model(run_dir, out)
    assert "| Steps | 20 |" in (out / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir() if "export" in path.name] == ["export"]


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"config.yaml, manifest.json, tokenizer is missing") as caught:
        export_model(tmp_path, tmp_path / "export")
    assert "runs/NAME" in caught.value.remedy


def test_a_manifest_of_another_corpus_is_refused(run_dir, tmp_path, manifest):
    other = manifest.model_copy(update={"corpus": "other"}).sealed()
    (run_dir / "manifest.json").write_text(other.model_dump_json())
    with pytest.raises(CheckpointError, match="was trained on the corpus"):
        export_model(run_dir, tmp_path / "export")


def test_another_model_config_is_refused_by_parameter(run_dir, tmp_path):
    path = run_dir / "config.yaml"
    path.write_text(path.read_text().replace("n_layer: 2", "n_layer: 3"))
    with pytest.raises(CheckpointError, match=r"transformer.h.2.ln_1.weight is not in the checkpoint"):
        export_model(run_dir, tmp_path / "export")


def test_a_tokenizer_without_a_class_is_given_one_that_keeps_its_ids(run_dir, tmp_path, tokenizer_folder):
    """AutoTokenizer would otherwise go by the model's type, and a gpt2 tokenizer is not a WordPiece one."""
    (run_dir / "tokenizer" / "tokenizer_config.json").unlink()
    out = export_model(run_dir, tmp_path / "export")
    tokenizer, original = (AutoTokenizer.from_pretrained(folder) for folder in (out, Path(tokenizer_folder)))
    assert tokenizer("第一条 Hello")["input_ids"] == original("第一条 Hello")["input_ids"]
    assert tokenizer.eos_token_id == 0
    settings = json.loads((out / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
