"""Make a tokenizer folder: train one on a reproducible sample of a corpus, or extend one that is there."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lmbatch.config import PreprocessConfig, TokenizerConfig, fingerprint, identity
from lmbatch.corpus import InputFile, list_inputs
from lmbatch.errors import ConfigError, CorpusError, TokenizerError, UsageError
from lmbatch.store import open_store
from lmbatch.tokens import kinds
from lmbatch.tokens.load import CONFIG_FILE, TOKENIZER_FILE, load_backend
from lmbatch.tokens.sample import Sample
from lmbatch.tokens.segmentation import SEGMENTATION_FILE, Segmentation, build_segmenter, installed

_log = logging.getLogger(__name__)
TRAINING_FILE = "training.json"
# Which of a tokenizer's own special tokens plays which part in transformers, by the spellings in use.
_ROLES = {
    "bos_token": ("<s>", "[CLS]"),
    "cls_token": ("<s>", "[CLS]"),
    "sep_token": ("</s>", "[SEP]"),
    "pad_token": ("<pad>", "[PAD]"),
    "unk_token": ("<unk>", "[UNK]"),
    "mask_token": ("<mask>", "[MASK]"),
}


@dataclass(frozen=True)
class TrainedTokenizer:
    """Where it lies, and what it was trained on (documents and UTF-8 bytes); ``reused`` if it was there already."""

    folder: Path
    size: int
    documents: int
    text_bytes: int
    reused: bool


def train_tokenizer(config: TokenizerConfig, corpus: PreprocessConfig | None = None) -> TrainedTokenizer:
    """Make and write a Hugging Face tokenizer folder; do nothing if the same one is there already.

    The result depends on the config, and on the corpus or the tokenizer that it names. Raises CorpusError if the
    corpus gives no text at all, UsageError if somebody else's folder is in the way, ConfigError if there is no corpus
    to train on, TokenizerError if `base` is unusable or the segmenter is not installed.
    """
    if config.type == "extend":
        return _extend(config)
    if corpus is None:
        raise ConfigError(f"type `{config.type}` is trained on a corpus, and none was given", remedy="set `corpus`")
    segmentation = installed(config.segmenter) if config.type == "word" else None
    files = list_inputs(open_store(corpus.corpus.raw), corpus.corpus)
    wanted = _wanted(config, corpus, files, segmentation)
    folder = Path(config.out)
    found = _found(folder, wanted)
    if found is not None:
        return found

    sample = Sample(corpus, config, files)
    backend = _train(config, sample, segmentation)
    if not sample.documents:
        raise CorpusError(
            f"{corpus.corpus.raw}: no document has any text to train a tokenizer on",
            remedy="check corpus.text_fields and corpus.format",
        )
    kinds.add_post_processor(config, backend)
    size = backend.get_vocab_size(with_added_tokens=True)
    if size < config.vocab_size:
        _log.warning("the corpus gave %d entries, %d were asked for", size, config.vocab_size)
    trained = TrainedTokenizer(folder, size, sample.documents, sample.text_bytes, False)
    _write(trained, wanted, backend, _settings(config), segmentation)
    return trained


def _train(config: TokenizerConfig, sample: Sample, segmentation: Segmentation | None) -> Tokenizer:
    if segmentation is not None:
        return kinds.word(config, sample, build_segmenter(segmentation, config.special_tokens))
    return kinds.wordpiece(config, sample) if config.type == "wordpiece" else kinds.byte_bpe(config, sample)


def _extend(config: TokenizerConfig) -> TrainedTokenizer:
    """The tokenizer of ``base`` with special tokens added; nothing is trained."""
    assert config.base is not None
    backend, of_base = load_backend(Path(config.base))
    wanted = fingerprint({"config": identity(config), "base": json.loads(of_base)})
    folder = Path(config.out)
    found = _found(folder, wanted)
    if found is not None:
        return found
    backend.add_special_tokens(kinds.special(config.special_tokens))
    kinds.add_post_processor(config, backend)
    size = backend.get_vocab_size(with_added_tokens=True)
    if size != config.vocab_size:
        raise TokenizerError(
            f"{config.base}: with {', '.join(config.special_tokens)} added it has {size} entries, "
            f"the config says {config.vocab_size}",
            remedy="is it the tokenizer that the config means? If so, set vocab_size to what it has",
        )
    trained = TrainedTokenizer(folder, size, 0, 0, False)
    # The role alone: the model's own unknown token stays what it is, so no text turns into EOD.
    _write(trained, wanted, backend, {"unk_token": config.eod} | _settings(config), None)
    return trained


def _wanted(
    config: TokenizerConfig, corpus: PreprocessConfig, files: list[InputFile], segmentation: Segmentation | None
) -> str:
    return fingerprint(
        {
            "config": identity(config),
            "corpus": identity(corpus.corpus),
            "inputs": [[file.path, file.size] for file in files],
            "cleaning": identity(corpus.cleaning),
            "segmentation": segmentation.to_json() if segmentation else None,
        }
    )


def _settings(config: TokenizerConfig) -> dict[str, Any]:
    roles = {
        role: next(token for token in spellings if token in config.special_tokens)
        for role, spellings in _ROLES.items()
        if {*spellings} & {*config.special_tokens}
    }
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": config.eod,
        "pad_token": config.eod,
        **roles,
        "eos_token": config.eod,
        "model_max_length": config.max_length,
        "clean_up_tokenization_spaces": False,
    }


def _write(
    trained: TrainedTokenizer,
    wanted: str,
    backend: Tokenizer,
    settings: dict[str, Any],
    segmentation: Segmentation | None,
) -> None:
    """Write the folder beside its place and move it there whole, so that a kill leaves no half tokenizer."""
    folder = trained.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    (building / TOKENIZER_FILE).write_text(backend.to_str(pretty=True), encoding="utf-8")
    if segmentation is not None:
        (building / SEGMENTATION_FILE).write_text(segmentation.to_json(), encoding="utf-8")
    facts = {"fingerprint": wanted, "size": trained.size, "documents": trained.documents,
             "text_bytes": trained.text_bytes}  # fmt: skip
    for name, value in ((CONFIG_FILE, settings), (TRAINING_FILE, facts)):
        (building / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    building.rename(folder)


def _found(folder: Path, wanted: str) -> TrainedTokenizer | None:
    """What stands in the folder, if it is what is wanted. Raises UsageError if it is not ours to replace."""
    before = _read_training(folder)
    if before is not None and before.get("fingerprint") == wanted:
        return TrainedTokenizer(folder, int(before["size"]), int(before["documents"]), int(before["text_bytes"]), True)
    if before is None and folder.exists() and any(folder.iterdir()):
        raise UsageError(
            f"{folder}: exists, and was not written by `lmbatch tokenizer train`",
            remedy="choose another `out`, or move that folder away",
        )
    return None


def _read_training(folder: Path) -> dict[str, Any] | None:
    try:
        value = json.loads((folder / TRAINING_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and (folder / TOKENIZER_FILE).is_file() else None
