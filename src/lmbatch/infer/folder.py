"""Loading an exported folder: everything that transformers would quietly make up is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lmbatch.errors import CheckpointError, LmbatchError, TokenizerError, UsageError
from lmbatch.infer.text import WORDS
from lmbatch.infer.words import WordTokenizer
from lmbatch.tokens.segmentation import SEGMENTATION_FILE

_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
_PROBE = "第一条 为了，Hello world! 12\n"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def check_export(folder: Path) -> None:
    """Raises UsageError, with the way out, for a folder that is no export."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder", remedy="make one with `lmbatch export RUN --out FOLDER`")
    if (folder / "checkpoints").is_dir() and (folder / "config.yaml").exists():
        raise UsageError(
            f"{folder}: is a run folder, not an exported model",
            remedy=f"export it first: lmbatch export {folder} --out FOLDER",
        )
    missing = [
        " or ".join(names)
        for names in (("config.json",), _WEIGHTS, _TOKENIZER_FILES)
        if not any((folder / name).exists() for name in names)
    ]
    if missing:
        raise UsageError(
            f"{folder}: is no exported model: {', '.join(missing)} is missing",
            remedy="make one with `lmbatch export RUN --out FOLDER`",
        )


def load_model(folder: Path, *, masked: bool = False) -> PreTrainedModel:
    """The model, a causal or a ``masked`` one, on the CPU.

    Raises UsageError if it is of the other kind, CheckpointError if it cannot be loaded whole.
    """
    check_kind(folder, masked=masked)
    auto: Any = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    try:
        model, report = auto.from_pretrained(folder, output_loading_info=True, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _damaged(folder, f"cannot be loaded: {error}") from error
    # transformers fills missing tensors with random numbers and only warns.
    wrong = [f"{kind}: {', '.join(map(str, names))}" for kind, names in _wrong_keys(report).items()]
    if wrong:
        raise _damaged(folder, f"does not fit its config.json: {'; '.join(wrong)}")
    assert isinstance(model, PreTrainedModel)
    return model


def check_kind(folder: Path, *, masked: bool) -> None:
    """Raises UsageError, naming the command that fits, if the model is masked and shall not be, or the reverse.

    transformers loads either kind as the other, with a head that fits nothing.
    """
    if is_masked(folder) == masked:
        return
    if masked:
        raise UsageError(
            f"{folder}: is a causal language model, which continues a text and fills no mask",
            remedy=f"use `lmbatch generate {folder} -p TEXT`",
        )
    raise UsageError(
        f"{folder}: is a masked language model, which fills masks and does not continue a text",
        remedy=f'use `lmbatch fill-mask {folder} -p "… {_mask_token(folder)} …"`',
    )


def is_masked(folder: Path) -> bool:
    """Is the model of a folder a masked language model, by its config.json? Raises CheckpointError if that is none."""
    try:
        names = json.loads((folder / "config.json").read_bytes()).get("architectures") or []
    except (OSError, ValueError, AttributeError) as error:
        raise _damaged(folder, f"config.json cannot be read: {error}") from error
    return any(str(name).endswith("ForMaskedLM") for name in names)


def _mask_token(folder: Path) -> str:
    try:
        token = json.loads((folder / "tokenizer_config.json").read_bytes()).get("mask_token")
    except (OSError, ValueError, AttributeError):
        token = None
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else "MASK"


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder. Raises TokenizerError if it is not the one that its files describe."""
    if not any((folder / name).exists() for name in _TOKENIZER_FILES):
        raise TokenizerError(f"{folder}: has none of {', '.join(_TOKENIZER_FILES)}: no tokenizer lies here")
    try:
        words = (folder / SEGMENTATION_FILE).is_file()
        tokenizer = WordTokenizer.of(folder) if words else AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TokenizerError(f"{folder}: the tokenizer cannot be loaded: {error}") from error
    _check_whole(folder, tokenizer)
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def tokenizer_kind(tokenizer: PreTrainedTokenizerBase) -> str:
    """WordPiece, BPE, Unigram or WordLevel, or WORDS; empty for a tokenizer that is not `tokenizers`' own."""
    if isinstance(tokenizer, WordTokenizer):
        return WORDS
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return type(backend.model).__name__ if backend is not None else ""


def _wrong_keys(report: dict[str, Any]) -> dict[str, Any]:
    kinds = ("missing_keys", "mismatched_keys", "unexpected_keys")
    return {kind.replace("_", " "): sorted(report[kind]) for kind in kinds if report.get(kind)}


def _check_whole(folder: Path, tokenizer: Any) -> None:
    """transformers rebuilds a tokenizer by its class name, and may lose or change it on the way without a word."""
    path = folder / "tokenizer.json"
    original = Tokenizer.from_file(str(path)) if path.exists() else None
    if original is not None:
        wanted = original.get_vocab_size(with_added_tokens=True)
    else:
        wanted = len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
    if len(tokenizer) < wanted:
        raise _misread(folder, f"{len(tokenizer)} of the tokenizer's {wanted} entries were loaded")
    if original is not None and _encoded(tokenizer) != original.encode(_PROBE, add_special_tokens=False).ids:
        raise _misread(folder, "the tokenizer that was loaded cuts text in another way than its tokenizer.json")


def _encoded(tokenizer: Any) -> list[int]:
    if isinstance(tokenizer, WordTokenizer):  # what the file describes stands behind the segmentation
        return list(tokenizer.backend_tokenizer.encode(_PROBE, add_special_tokens=False).ids)
    ids: list[int] = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    return ids


def _misread(folder: Path, what: str) -> TokenizerError:
    return TokenizerError(
        f"{folder}: {what}",
        remedy="tokenizer_config.json names a class that does not fit the files; PreTrainedTokenizerFast fits any "
        "tokenizer.json",
    )


def pick_device(device: str | None) -> torch.device:
    """The named device, or a GPU if there is one."""
    return torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")


def _damaged(folder: Path, what: str) -> LmbatchError:
    return CheckpointError(f"{folder}: {what}", remedy="the folder is damaged or incomplete: export it again")
