"""From a model config to a freshly initialised model."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lmbatch.config import ModelConfig
from lmbatch.errors import ConfigError

# Older spellings that the config classes with rotary positions still take.
_ROTARY_KEYS = ("rope_theta", "rope_scaling")


def model_config(config: ModelConfig, *, vocab_size: int, sequence_length: int, eod_id: int) -> PreTrainedConfig:
    """The transformers config of ``config``, with vocabulary, context and special ids filled in.

    Raises ConfigError for an unknown model type, a key that its config class does not know, a value that it refuses,
    a vocabulary smaller than the tokenizer's or a position table shorter than ``sequence_length``.
    """
    kind = _config_class(config.type)
    known = known_keys(kind)
    _refuse_unknown(config, known)
    values: dict[str, Any] = {
        "vocab_size": vocab_size,
        "max_position_embeddings": sequence_length,
        "bos_token_id": eod_id,
        "eos_token_id": eod_id,
        # A padding id would freeze the embedding of that token, and packed samples have no padding.
        "pad_token_id": None,
        "use_cache": False,
    }
    given = {_spelling(kind, key): value for key, value in config.config.items()}
    filled = {_spelling(kind, key): value for key, value in values.items() if _spelling(kind, key) in known}
    try:
        built: PreTrainedConfig = kind(**(filled | given))
    except (StrictDataclassError, TypeError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"model.config of type `{config.type}`: {detail}", remedy="correct `model.config`") from error
    _check_sizes(built, vocab_size, sequence_length)
    return built


def build_model(
    config: ModelConfig, *, vocab_size: int, sequence_length: int, eod_id: int, seed: int
) -> PreTrainedModel:
    """A causal language model in float32 on the CPU, initialised from ``seed`` alone.

    The global random state is as before afterwards. Raises ConfigError as ``model_config`` does.
    """
    built = model_config(config, vocab_size=vocab_size, sequence_length=sequence_length, eod_id=eod_id)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(built)  # type: ignore[no-untyped-call]
    return model


def known_keys(kind: type[PreTrainedConfig]) -> set[str]:
    """Every key that a transformers config class takes, its aliases included."""
    fields = {field.name for field in dataclasses.fields(kind)}
    rotary = set(_ROTARY_KEYS) if "rope_parameters" in fields else set()
    return fields | set(kind.attribute_map) | rotary


def _config_class(name: str) -> type[PreTrainedConfig]:
    if name not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        near = difflib.get_close_matches(name, list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "use one such as gpt2, llama or qwen2"
        raise ConfigError(f"model.type `{name}` is no causal language model that transformers knows", remedy=hint)
    kind: type[PreTrainedConfig] = CONFIG_MAPPING[name]
    return kind


def _spelling(kind: type[PreTrainedConfig], key: str) -> str:
    return kind.attribute_map.get(key, key)


def _refuse_unknown(config: ModelConfig, known: set[str]) -> None:
    for key in config.config:
        if key not in known:
            near = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(sorted(known))}"
            raise ConfigError(f"model.config.{key}: not a setting of the model type `{config.type}`", remedy=hint)


def _check_sizes(built: PreTrainedConfig, vocab_size: int, sequence_length: int) -> None:
    if built.vocab_size < vocab_size:
        raise ConfigError(
            f"model.config.vocab_size is {built.vocab_size}, but the shards' tokenizer has {vocab_size} entries",
            remedy="leave it out, or round it up",
        )
    positions = getattr(built, "max_position_embeddings", None)
    if positions is not None and positions < sequence_length:
        raise ConfigError(
            f"model.config: {positions} positions are fewer than data.sequence_length = {sequence_length}",
            remedy="leave the number of positions out, or make the sequence shorter",
        )
