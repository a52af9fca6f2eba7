"""From a model config to a freshly initialised model."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from lmbatch.config import ModelConfig
from lmbatch.errors import ConfigError
from lmbatch.model.padding import pad_vocabulary

# Older spellings that the config classes with rotary positions still take.
_ROTARY_KEYS = ("rope_theta", "rope_scaling")
# Positions of these count from the padding id + 1 on, as fairseq's do, so that their tables have that many more rows.
_SHIFTED_POSITIONS = frozenset(
    ("camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm",
     "xlm-roberta", "xlm-roberta-xl", "xmod")
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class MaskedIds:
    """The special ids of a masked language model, besides the one that ends a text."""

    first: int
    pad: int


def model_config(
    config: ModelConfig, *, vocab_size: int, sequence_length: int, eod_id: int, masked: MaskedIds | None = None
) -> PreTrainedConfig:
    """The transformers config of ``config``, with vocabulary, context and special ids filled in.

    ``masked`` makes it a masked language model's, else it is a causal one's. Raises ConfigError for an unknown model
    type, a key that its config class does not know, a value that it refuses, a vocabulary smaller than the tokenizer's
    or a position table shorter than ``sequence_length``.
    """
    kind = _config_class(config.type, is_masked=masked is not None)
    known = known_keys(kind)
    _refuse_unknown(config, known)
    shift = masked.pad + 1 if masked is not None and config.type in _SHIFTED_POSITIONS else 0
    values: dict[str, Any] = {
        "vocab_size": vocab_size,
        "max_position_embeddings": sequence_length + shift,
        "bos_token_id": eod_id if masked is None else masked.first,
        "eos_token_id": eod_id,
        # A padding id would freeze the embedding of that token, and a causal model never sees padding.
        "pad_token_id": None if masked is None else masked.pad,
        "use_cache": False,
    }
    given = {_spelling(kind, key): value for key, value in config.config.items()}
    filled = {_spelling(kind, key): value for key, value in values.items() if _spelling(kind, key) in known}
    try:
        built: PreTrainedConfig = kind(**(filled | given))
    except (StrictDataclassError, TypeError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"model.config of type `{config.type}`: {detail}", remedy="correct `model.config`") from error
    _check_sizes(built, vocab_size, sequence_length, shift)
    return built


def build_model(
    config: ModelConfig,
    *,
    vocab_size: int,
    sequence_length: int,
    eod_id: int,
    seed: int,
    masked: MaskedIds | None = None,
) -> PreTrainedModel:
    """A causal language model, or with ``masked`` a masked one, in float32 on the CPU, initialised from ``seed`` alone.

    The global random state is as before afterwards. Raises ConfigError as ``model_config`` does, and for a type whose
    vocabulary cannot be padded.
    """
    built = model_config(config, vocab_size=vocab_size, sequence_length=sequence_length, eod_id=eod_id, masked=masked)
    auto: Any = AutoModelForCausalLM if masked is None else AutoModelForMaskedLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = auto.from_config(built)
    pad_vocabulary(model, config.pad_vocab_to_multiple)
    return model


def known_keys(kind: type[PreTrainedConfig]) -> set[str]:
    """Every key that a transformers config class takes, its aliases included."""
    fields = {field.name for field in dataclasses.fields(kind)}
    rotary = set(_ROTARY_KEYS) if "rope_parameters" in fields else set()
    return fields | set(kind.attribute_map) | rotary


def _config_class(name: str, *, is_masked: bool) -> type[PreTrainedConfig]:
    known = MODEL_FOR_MASKED_LM_MAPPING_NAMES if is_masked else MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    examples = "bert, roberta or deberta-v2" if is_masked else "gpt2, llama or qwen2"
    kind: type[PreTrainedConfig] | None = CONFIG_MAPPING[name] if name in known else None
    # Of those that transformers lists as masked, some are decoders with an encoder, which lmbatch does not train.
    if kind is None or (is_masked and getattr(kind(), "is_encoder_decoder", False)):
        what = "masked" if is_masked else "causal"
        raise ConfigError(
            f"model.type `{name}` is no {what} language model that transformers knows",
            remedy=_nearest(name, known) or f"use one such as {examples}",
        )
    return kind


def _nearest(name: str, known: Collection[str]) -> str | None:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near and name not in near else None


def _spelling(kind: type[PreTrainedConfig], key: str) -> str:
    return kind.attribute_map.get(key, key)


def _refuse_unknown(config: ModelConfig, known: set[str]) -> None:
    for key in config.config:
        if key not in known:
            near = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(sorted(known))}"
            raise ConfigError(f"model.config.{key}: not a setting of the model type `{config.type}`", remedy=hint)


def _check_sizes(built: PreTrainedConfig, vocab_size: int, sequence_length: int, shift: int) -> None:
    if built.vocab_size < vocab_size:
        raise ConfigError(
            f"model.config.vocab_size is {built.vocab_size}, but the shards' tokenizer has {vocab_size} entries",
            remedy="leave it out, or round it up",
        )
    positions = getattr(built, "max_position_embeddings", None)
    if positions is not None and positions < sequence_length + shift:
        more = f" + {shift} (this type counts from its padding id on)" if shift else ""
        raise ConfigError(
            f"model.config: {positions} positions are fewer than data.sequence_length = {sequence_length}{more}",
            remedy="leave the number of positions out, or make the sequence shorter",
        )
