"""Runs that begin with somebody else's weights: what they read, pin, refuse, and no longer need."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lmbatch.config import ModelConfig, TrainConfig, load_config
from lmbatch.errors import CheckpointError, ConfigError, ResumeError, TokenizerError, UsageError
from lmbatch.infer import TextGenerator, export_model
from lmbatch.loader import BatchLoader, open_train_data
from lmbatch.model import causal_loss, load_base, pin_base
from lmbatch.train import train
from lmbatch.train.metrics import read_metrics, training_rows
from lmbatch.train.recorder import Recorder
from lmbatch.train.stop import StopFlag
from support.base_folder import ROWS, write_base
from support.tiny_corpus import EOD, VOCABULARY
from support.tiny_run import call_after_step, newest_payload, tiny_config

SIZES = {"vocab_size": len(VOCABULARY), "sequence_length": 32, "eod_id": 0}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def copy(base, tmp_path) -> Path:
    """The folder, to be spoiled."""
    return Path(shutil.copytree(base, tmp_path / "copy"))


def config_of(store, folder: Path, base: Path, **changes) -> TrainConfig:
    model = {"type": "bloom", "config": {}, "base": str(base), **changes.pop("model", {})}
    values = tiny_config(store, folder, **{"steps": 4, "save": {"every": 2}, "evaluate": {"batches": 0}, **changes})
    return values.model_copy(update={"model": ModelConfig.model_validate(model)})


def model_of(base: Path, **changes) -> ModelConfig:
    return ModelConfig.model_validate({"type": "bloom", "base": str(base), **changes})


def spoil_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def finished(store, base, tmp_path_factory):
    return train(config_of(store, tmp_path_factory.mktemp("finished"), base))


def test_the_first_step_sees_the_weights_of_the_folder(finished, store, base):
    """The loss of step 1 is the loss that transformers' own model has on the run's first batch."""
    theirs = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    with open_train_data(tiny_config(store, base.parent / "x").data, seed=1) as data:
        loader = BatchLoader(
            data.order, data.reader, batch_size=8, micro=8, start_sample=0, rank=0, world_size=1, prefetch=1
        )
        rows = torch.from_numpy(next(loader).batches[0].tokens).long()
        loader.close()
    with torch.no_grad():
        loss = causal_loss(theirs(rows[:, :-1]).logits, rows[:, 1:]).item() / rows[:, 1:].numel()
    assert training_rows(read_metrics(finished.run_dir))[0]["loss"] == pytest.approx(loss, rel=1e-5)


def test_the_run_keeps_all_settings_and_the_digest(finished, base):
    kept = load_config(TrainConfig, finished.run_dir / "config.yaml").model
    assert kept == pin_base(model_of(base))
    assert (kept.config["vocab_size"], kept.config["hidden_size"], kept.config["n_layer"]) == (ROWS, 32, 2)
    assert kept.base_digest.startswith("sha256:")


def test_a_resume_needs_no_folder_and_changes_nothing(finished, store, copy, tmp_path, monkeypatch):
    monkeypatch.setattr(Recorder, "train", Recorder.train)
    stop = StopFlag()
    call_after_step(2, lambda: stop.request("SIGTERM"))
    train(config_of(store, tmp_path, copy), stop)
    shutil.rmtree(copy)
    resumed = train(config_of(store, tmp_path, copy))
    assert (resumed.resumed_from, resumed.step) == (2, 4)
    assert newest_payload(resumed.run_dir) == newest_payload(finished.run_dir)


def test_a_resume_with_other_weights_is_refused(finished, store, tmp_path):
    other = write_base(tmp_path / "other", seed=8)
    shutil.copytree(finished.run_dir, tmp_path / finished.run_dir.name)
    config = config_of(store, tmp_path, other)
    with pytest.raises(ResumeError, match=r"model\.base_digest: \"sha256:.* → \"sha256:"):
        train(config)


def test_a_resume_of_a_run_that_began_with_nothing_cannot_name_a_folder_that_is_gone(straight, store, tmp_path):
    shutil.copytree(straight.run_dir, tmp_path / straight.run_dir.name)
    with pytest.raises(ResumeError, match="did not begin with anybody's weights"):
        train(config_of(store, tmp_path, tmp_path / "gone", steps=20))


def test_without_a_checkpoint_the_folder_must_be_there(store, tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        train(config_of(store, tmp_path, tmp_path / "gone"))


def test_the_padded_table_is_kept_and_no_text_shows_its_rows(finished, tmp_path):
    out = export_model(finished.run_dir, tmp_path / "export")
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size == ROWS > len(VOCABULARY)
    assert "continued from the weights of" in (out / "README.md").read_text(encoding="utf-8")
    assert str(tmp_path.parent) not in (out / "README.md").read_text(encoding="utf-8")
    TextGenerator.from_folder(out)


def test_half_precision_becomes_float32_exactly(base):
    pinned = pin_base(model_of(base))
    before = torch.random.get_rng_state()
    model = load_base(pinned, **SIZES)
    assert torch.equal(before, torch.random.get_rng_state())
    stored = load_file(base / "model.safetensors")
    name = "transformer.h.1.mlp.dense_4h_to_h.weight"
    assert model.state_dict()[name].dtype is torch.float32
    assert torch.equal(model.state_dict()[name], stored[name].float())
    assert (model.config.eos_token_id, model.config.pad_token_id, model.config.use_cache) == (0, None, False)


def test_dropout_may_differ_and_nothing_else(base):
    pinned = pin_base(model_of(base, config={"hidden_dropout": 0.1, "hidden_size": 32}))
    assert pinned.config["hidden_dropout"] == 0.1
    with pytest.raises(ConfigError, match=r"n_layer: 2 → 3; layer_norm_epsilon: 1e-05 → 0\.1"):
        pin_base(model_of(base, config={"n_layer": 3, "layer_norm_epsilon": 0.1, "hidden_dropout": 0.1}))


def test_another_type_than_the_folder_s_is_refused(base):
    with pytest.raises(ConfigError, match="is a model of type `bloom`, but model.type is `gpt2`"):
        pin_base(model_of(base).model_copy(update={"type": "gpt2"}))


def test_quantized_weights_are_refused(copy):
    values = json.loads((copy / "config.json").read_text())
    values["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (copy / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="quantized"):
        pin_base(model_of(copy))


def test_every_tensor_that_does_not_fit_is_named(copy):
    def change(weights):
        bias = "transformer.h.0.mlp.dense_h_to_4h.bias"
        weights[bias] = weights[bias][:5].clone()
        weights["score.weight"] = torch.zeros(2)
        del weights["transformer.h.1.mlp.dense_h_to_4h.bias"]

    spoil_weights(copy, change)
    with pytest.raises(CheckpointError) as caught:
        load_base(pin_base(model_of(copy)), **SIZES)
    assert "transformer.h.1.mlp.dense_h_to_4h.bias is not in the folder" in str(caught.value)
    assert "score.weight is not in the model" in str(caught.value)
    assert "transformer.h.0.mlp.dense_h_to_4h.bias is (5,) in the folder, (128,) in the model" in str(caught.value)


def test_another_digest_than_the_pinned_one_is_refused(copy):
    digest = pin_base(model_of(copy)).base_digest
    assert pin_base(model_of(copy, base_digest=digest)).base_digest == digest
    spoil_weights(copy, lambda weights: weights["transformer.ln_f.bias"].add_(1))
    with pytest.raises(CheckpointError, match="asks for " + digest):
        pin_base(model_of(copy, base_digest=digest))


def test_weights_that_change_between_two_looks_are_refused(copy):
    pinned = pin_base(model_of(copy))
    spoil_weights(copy, lambda weights: weights["transformer.ln_f.bias"].add_(1))
    with pytest.raises(CheckpointError, match="but the run began with"):
        load_base(pinned, **SIZES)


def test_a_vocabulary_smaller_than_the_tokenizer_is_refused(tmp_path):
    small = write_base(tmp_path / "small", vocab_size=len(VOCABULARY) - 1)
    with pytest.raises(ConfigError, match=f"vocab_size is {len(VOCABULARY) - 1}"):
        load_base(pin_base(model_of(small)), **SIZES)


def test_a_pickle_is_read_only_when_that_is_asked_for(tmp_path, base):
    folder = write_base(tmp_path / "pickled", pickle=True)
    with pytest.raises(UsageError, match="a pickle, which could run code"):
        pin_base(model_of(folder))
    allowed = model_of(folder, base_pickle=True)
    ours, theirs = load_base(pin_base(allowed), **SIZES), load_base(pin_base(model_of(base)), **SIZES)
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in theirs.state_dict().items())


class Code:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_even_then_a_pickle_runs_no_code(tmp_path):
    folder = write_base(tmp_path / "pickled", pickle=True)
    mark = tmp_path / "ran"
    torch.save({"transformer.ln_f.bias": Code(mark)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_base(pin_base(model_of(folder, base_pickle=True)), **SIZES)
    assert not mark.exists()


def test_an_index_cannot_lead_out_of_the_folder(copy):
    (copy / "model.safetensors").rename(copy.parent / "outside.safetensors")
    index = {"weight_map": {"a": "../outside.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="outside.safetensors"):
        pin_base(model_of(copy))


def test_another_tokenizer_is_refused_by_its_first_other_token(copy, store, tmp_path):
    values = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = values["model"]["vocab"]
    vocabulary["三"], vocabulary["四"] = vocabulary["四"], vocabulary["三"]
    (copy / "tokenizer.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    with pytest.raises(TokenizerError, match="id 3 is '四' in the first, '三' in the second"):
        train(config_of(store, tmp_path, copy))


def test_the_same_entries_with_another_normal_form_are_refused(copy, store, tmp_path):
    values = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    values["normalizer"] = {"type": "NFKC"}
    (copy / "tokenizer.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    with pytest.raises(TokenizerError, match="the text .* becomes"):
        train(config_of(store, tmp_path, copy))


def test_the_same_tokenizer_spelt_otherwise_fits(copy, store, tmp_path):
    values = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    values["truncation"] = {"direction": "Right", "max_length": 512, "strategy": "LongestFirst", "stride": 0}
    (copy / "tokenizer.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    assert train(config_of(store, tmp_path, copy, steps=1)).step == 1


def test_a_folder_without_a_tokenizer_is_refused(copy, store, tmp_path):
    (copy / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match="may mean other tokens"):
        train(config_of(store, tmp_path, copy))


def test_a_tokenizer_with_one_more_entry_is_refused(copy, store, tmp_path):
    """Though the table has rows enough for it."""
    values = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    values["model"]["vocab"]["外"] = len(VOCABULARY)
    (copy / "tokenizer.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    with pytest.raises(TokenizerError, match=f"id {len(VOCABULARY)} is '外' in the first, nothing in the second"):
        train(config_of(store, tmp_path, copy))


def test_another_token_that_ends_a_document_is_refused(copy, store, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (copy / name).read_text(encoding="utf-8")
        (copy / name).write_text(text.replace(EOD, "</s>"), encoding="utf-8")
    with pytest.raises(TokenizerError, match=re.escape(EOD)):
        train(config_of(store, tmp_path, copy))


def test_a_pinned_base_with_another_padding_is_another_run(store, base, tmp_path):
    train(config_of(store, tmp_path, base, steps=2))
    with pytest.raises(ResumeError, match=r"model\.pad_vocab_to_multiple: .* → 48"):
        train(config_of(store, tmp_path, base, steps=2, model={"pad_vocab_to_multiple": 48}))
