"""Train a byte-level BPE tokenizer on a reproducible sample of a corpus."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from lmbatch.config import PreprocessConfig, TokenizerConfig, fingerprint, identity
from lmbatch.corpus import InputFile, Seen, build_cleaner, list_inputs, probe, read_piece, split_file
from lmbatch.corpus.document import Document
from lmbatch.errors import CorpusError, UsageError
from lmbatch.store import open_store
from lmbatch.tokens.load import CONFIG_FILE, TOKENIZER_FILE

_log = logging.getLogger(__name__)
TRAINING_FILE = "training.json"


@dataclass(frozen=True)
class TrainedTokenizer:
    """Where it lies, and what it was trained on (documents and UTF-8 bytes); ``reused`` if it was there already."""

    folder: Path
    size: int
    documents: int
    text_bytes: int
    reused: bool


def train_tokenizer(config: TokenizerConfig, corpus: PreprocessConfig) -> TrainedTokenizer:
    """Train and write a Hugging Face tokenizer folder; do nothing if the same one is there already.

    The result depends on the config and the corpus alone: documents are drawn by the hash of their text.
    Raises CorpusError if the corpus gives no text at all, UsageError if somebody else's folder is in the way.
    """
    raw = open_store(corpus.corpus.raw)
    files = list_inputs(raw, corpus.corpus)
    inputs = [[file.path, file.size] for file in files]
    wanted = fingerprint(
        {
            "config": identity(config),
            "corpus": identity(corpus.corpus),
            "inputs": inputs,
            "cleaning": identity(corpus.cleaning),
        }
    )
    folder = Path(config.out)
    before = _read_training(folder)
    if before is not None and before.get("fingerprint") == wanted:
        return TrainedTokenizer(folder, int(before["size"]), int(before["documents"]), int(before["text_bytes"]), True)
    if before is None and folder.exists() and any(folder.iterdir()):
        raise UsageError(
            f"{folder}: exists, and was not written by `lmbatch tokenizer train`",
            remedy="choose another `out`, or move that folder away",
        )

    sample = _Sample(corpus, config, files)
    backend = _byte_bpe(config, iter(sample))
    if not sample.documents:
        raise CorpusError(
            f"{corpus.corpus.raw}: no document has any text to train a tokenizer on",
            remedy="check corpus.text_fields and corpus.format",
        )
    size = backend.get_vocab_size(with_added_tokens=True)
    if size < config.vocab_size:
        _log.warning("the corpus gave %d entries, %d were asked for", size, config.vocab_size)
    facts = {"fingerprint": wanted, "size": size, "documents": sample.documents, "text_bytes": sample.text_bytes}
    _write(folder, backend, config, facts)
    return TrainedTokenizer(folder, size, sample.documents, sample.text_bytes, False)


class _Sample:
    """The texts that are trained on; counts what it gave."""

    def __init__(self, corpus: PreprocessConfig, config: TokenizerConfig, files: list[InputFile]) -> None:
        self.documents = 0
        self.text_bytes = 0
        self._corpus = corpus
        self._config = config
        self._files = files

    def __iter__(self) -> Iterator[str]:
        # The share is set from bytes of input, which exceed bytes of text, so the cap below seldom bites.
        share = min(1.0, self._config.sample_bytes / max(1, sum(file.size for file in self._files)))
        salt = f"tokenizer:{self._config.seed}:".encode()
        raw = open_store(self._corpus.corpus.raw)
        clean = build_cleaner(self._corpus.cleaning)
        for file in self._files:
            facts = probe(raw, self._corpus.corpus, file)
            for piece in split_file(file, facts, self._corpus.corpus, max(1, file.size)):
                for record in read_piece(raw, self._corpus.corpus, piece, facts, Seen()):
                    document = clean(record) if isinstance(record, Document) else record
                    if not isinstance(document, Document) or not _drawn(salt, document.text, share):
                        continue
                    data = len(document.text.encode())
                    if self.text_bytes + data > self._config.sample_bytes:
                        return
                    self.documents += 1
                    self.text_bytes += data
                    yield document.text


def _drawn(salt: bytes, text: str, share: float) -> bool:
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=salt[:64]).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def _byte_bpe(config: TokenizerConfig, texts: Iterator[str]) -> Tokenizer:
    """Byte-level BPE as in GPT-2 (Radford et al. 2019, section 2.2): no unknown token is possible."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in config.special_tokens],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer=trainer)
    return backend


def _settings(config: TokenizerConfig) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": config.eod,
        "eos_token": config.eod,
        "pad_token": config.eod,
        "model_max_length": config.max_length,
        "clean_up_tokenization_spaces": False,
    }


def _write(folder: Path, backend: Tokenizer, config: TokenizerConfig, facts: dict[str, Any]) -> None:
    """Write the folder beside its place and move it there whole, so that a kill leaves no half tokenizer."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    (building / TOKENIZER_FILE).write_text(backend.to_str(pretty=True), encoding="utf-8")
    for name, value in ((CONFIG_FILE, _settings(config)), (TRAINING_FILE, facts)):
        (building / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    building.rename(folder)


def _read_training(folder: Path) -> dict[str, Any] | None:
    try:
        value = json.loads((folder / TRAINING_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and (folder / TOKENIZER_FILE).is_file() else None
