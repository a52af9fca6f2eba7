"""Beginning with somebody else's weights: a local Hugging Face folder, read and checked.

::

    ModelConfig {type, base, config} ── pin_base ──▶ the same with every setting of the folder, and its digest
                                                       │ kept by the run: a resume builds the model from that alone
                                                       ▼
                                          load_base ──▶ the model with the folder's weights, in float32

An embedding table with more rows than the tokenizer has entries (BLOOM and Qwen pad theirs) stays as it is, in training
and in the export: the shape is that of the folder, so whatever was made for that model fits what comes out. What
``model.pad_vocab_to_multiple`` adds to it is ours alone, and no export shows it (padding.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel

from lmbatch.config import ModelConfig
from lmbatch.config.fingerprint import canonical_json
from lmbatch.errors import CheckpointError, ConfigError, UsageError
from lmbatch.model.build import model_config
from lmbatch.model.padding import pad_vocabulary

CONFIG = "config.json"
_SAFE = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
# Filled in from the corpus, as for every model.
_FROM_CORPUS = frozenset({"bos_token_id", "eos_token_id", "pad_token_id", "use_cache"})
_HARMLESS = re.compile(r"dropout|pdrop|layerdrop")


def pin_base(model: ModelConfig) -> ModelConfig:
    """``model`` with all settings of its ``base`` folder in ``config``, and the folder's digest.

    Raises UsageError for a folder that is none, ConfigError for a type or a setting that is not the folder's (dropout
    may differ) and for a quantized model, CheckpointError for another digest than the one that is asked for.
    """
    folder = _folder(model)
    found = _folder_config(folder)
    if found.model_type != model.type:
        raise ConfigError(
            f"{folder / CONFIG}: is a model of type `{found.model_type}`, but model.type is `{model.type}`",
            remedy=f"set model.type to {found.model_type}",
        )
    digest = base_digest(folder, pickle=model.base_pickle)
    if model.base_digest not in (None, digest):
        raise CheckpointError(
            f"{folder}: its weights and config.json are {digest}, but model.base_digest asks for {model.base_digest}",
            remedy="put back the files that the run began with, or leave model.base_digest out",
        )
    settings = laid_over(settings_of(found), model.config, str(folder))
    return model.model_copy(update={"config": settings, "base_digest": digest})


def laid_over(settings: dict[str, Any], changes: dict[str, Any], where: str) -> dict[str, Any]:
    """``settings`` with ``changes``. Raises ConfigError naming each change that the weights would not fit."""
    wrong = [
        f"{key}: {settings.get(key)!r} → {value!r}"
        for key, value in changes.items()
        if not _HARMLESS.search(key) and settings.get(key) != value
    ]
    if wrong:
        raise ConfigError(
            f"model.config differs from {where}, whose weights it begins with: {'; '.join(wrong)}",
            remedy="leave these out; only dropout may differ",
        )
    return settings | changes


def load_base(model: ModelConfig, *, vocab_size: int, sequence_length: int, eod_id: int) -> PreTrainedModel:
    """The model of a pinned config with the weights of its ``base`` folder: float32, on the CPU.

    The global random state is as before afterwards. Raises CheckpointError if a tensor is missing, left over or of
    another shape, or if the folder has changed since it was pinned; ConfigError if vocabulary or context do not fit.
    """
    folder = _folder(model)
    built = model_config(model, vocab_size=vocab_size, sequence_length=sequence_length, eod_id=eod_id)
    loaded, report = _from_folder(folder, built, pickle=model.base_pickle)
    _check_whole(folder, report)
    if (digest := base_digest(folder, pickle=model.base_pickle)) != model.base_digest:
        raise CheckpointError(
            f"{folder}: is {digest}, but the run began with {model.base_digest}",
            remedy="the same files must lie there for every process",
        )
    settings: Any = GenerationConfig
    pad_vocabulary(loaded, model.pad_vocab_to_multiple)
    loaded.generation_config = settings()  # the folder's would decide how samples are drawn
    return loaded


def settings_of(config: PreTrainedConfig) -> dict[str, Any]:
    """What a config class adds to those of all models, defaults included, as plain values.

    Defaults too, for another version of transformers may have others.
    """
    common = {field.name for field in dataclasses.fields(PreTrainedConfig)} - {"tie_word_embeddings"}
    own = {field.name for field in dataclasses.fields(type(config))} - common - _FROM_CORPUS
    plain: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return {name: plain[name] for name in sorted(own & plain.keys())}


def base_digest(folder: Path, *, pickle: bool) -> str:
    """``sha256:…`` of config.json and the files of the weights, by name and content."""
    names = [CONFIG, *weight_files(folder, pickle=pickle)]
    return "sha256:" + hashlib.sha256(canonical_json({name: _sha256(folder / name) for name in names})).hexdigest()


def weight_files(folder: Path, *, pickle: bool) -> list[str]:
    """The names of the files that hold the weights, the index first. Raises UsageError if there are none to read."""
    for names in (_SAFE, _PICKLED) if pickle else (_SAFE,):
        for name in names:
            if (folder / name).is_file():
                return [name, *_parts(folder / name)]
    if any((folder / name).is_file() for name in _PICKLED):
        raise UsageError(
            f"{folder}: the weights are {_PICKLED[0]}, a pickle, which could run code of its author's",
            remedy="get model.safetensors instead, or, if you trust it, set model.base_pickle to true (torch then "
            "reads tensors and nothing else)",
        )
    raise UsageError(f"{folder}: holds no weights ({_SAFE[0]} is missing)", remedy="give a Hugging Face model folder")


def _parts(path: Path) -> Iterator[str]:
    if path.suffix != ".json":
        return
    try:
        parts = sorted(set(json.loads(path.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: is no index of weights: {error!r}", remedy="fetch the folder again") from error
    for name in parts:
        if Path(name).name != name or not (path.parent / name).is_file():
            raise CheckpointError(f"{path}: names the file {name!r}, which is not there", remedy="fetch it again")
        yield name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder(model: ModelConfig) -> Path:
    assert model.base is not None
    folder = Path(model.base)
    if (folder / CONFIG).is_file():
        return folder
    raise UsageError(
        f"model.base: {folder}: " + (f"has no {CONFIG}" if folder.is_dir() else "no such folder"),
        remedy="give a local Hugging Face model folder: config.json, model.safetensors and the tokenizer's files",
    )


def _folder_config(folder: Path) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"{folder / CONFIG}: cannot be used: {detail}", remedy="fetch the folder again") from error
    if getattr(config, "quantization_config", None) is not None:
        raise ConfigError(f"{folder / CONFIG}: its weights are quantized", remedy="take the model before quantization")
    return config


def _from_folder(folder: Path, config: PreTrainedConfig, *, pickle: bool) -> tuple[PreTrainedModel, dict[str, Any]]:
    auto: Any = AutoModelForCausalLM
    safe = any((folder / name).is_file() for name in _SAFE)
    try:
        with torch.random.fork_rng(devices=[]):
            model, report = auto.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=safe or not pickle,
                weights_only=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that the report names them all
            )
    except Exception as error:  # a damaged pickle raises anything
        detail = " ".join(str(error).split())[:500]
        raise CheckpointError(f"{folder}: cannot be loaded: {detail}", remedy="fetch the folder again") from error
    return model, report


def _check_whole(folder: Path, report: dict[str, Any]) -> None:
    """transformers fills what is missing with random numbers, and only warns."""
    lines = [f"{name} is not in the folder" for name in sorted(report["missing_keys"])]
    lines += [f"{name} is not in the model" for name in sorted(report["unexpected_keys"])]
    lines += [
        f"{name} is {tuple(old)} in the folder, {tuple(new)} in the model"
        for name, old, new in sorted(report["mismatched_keys"])
    ]
    if lines:
        more = f"; and {len(lines) - 10} more" if len(lines) > 10 else ""
        raise CheckpointError(
            f"{folder}: the weights do not fit config.json: {'; '.join(lines[:10])}{more}",
            remedy="fetch the folder again; a model of another task or type cannot be continued",
        )
