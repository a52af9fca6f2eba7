"""A tokenizer folder as Hugging Face writes it, loaded and checked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer, Tokenizer

from lmbatch.config.fingerprint import canonical_json
from lmbatch.errors import TokenizerError
from lmbatch.tokens.hub import fetch_from_hub, hub_name
from lmbatch.tokens.memory import give_back_memory
from lmbatch.tokens.segmentation import (
    SEGMENTATION_FILE,
    Segment,
    Segmentation,
    build_segmenter,
    check_installed,
    read_segmentation,
)

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
# What a folder may hold that AutoTokenizer reads; the store keeps a copy of these beside the shards.
KNOWN_FILES = (
    TOKENIZER_FILE,
    CONFIG_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    SEGMENTATION_FILE,
)


@dataclass(frozen=True)
class TextTokenizer:
    """A loaded tokenizer with the facts that shards depend on.

    ``size`` counts added tokens too (``len(tokenizer)`` in transformers); ``largest_id`` decides the shards' dtype.
    ``fingerprint`` covers the vocabulary, merges and every step of the pipeline, not the folder it came from.
    """

    backend: Tokenizer
    folder: Path
    fingerprint: str
    size: int
    largest_id: int
    eod_token: str
    eod_id: int
    segmentation: Segmentation | None = None
    origin: str | None = None  # name and commit on the hub, if it came from there

    def check_segmenter(self) -> None:
        """Raises TokenizerError if a segmenter is needed and not installed in the version of the vocabulary."""
        if self.segmentation is not None:
            check_installed(self.segmentation)

    def segmenter(self) -> Segment | None:
        """What every text must go through before ``backend`` encodes it, if anything.

        Raises TokenizerError if the segmenter is not installed in the version that the vocabulary was made with.
        """
        if self.segmentation is None:
            return None
        added = self.backend.get_added_tokens_decoder().values()
        return build_segmenter(self.segmentation, [token.content for token in added])

    def files(self) -> dict[str, bytes]:
        """The folder's tokenizer files by name, ``tokenizer.json`` always among them."""
        found = {name: (self.folder / name).read_bytes() for name in KNOWN_FILES if (self.folder / name).is_file()}
        found.setdefault(TOKENIZER_FILE, self.backend.to_str(pretty=True).encode())
        return found


def load_tokenizer(path: str | Path, eod: str | None = None) -> TextTokenizer:
    """Load a folder that holds tokenizer.json, vocab.txt (BERT) or vocab.json + merges.txt (GPT-2).

    ``path`` may also be a name on the Hugging Face hub, as ``Qwen/Qwen2-0.5B`` or ``Qwen/Qwen2-0.5B@REVISION``.

    ``eod`` names the token that ends a document; by default it is the folder's own eos_token. Text is encoded as
    text: a document that spells out a special token does not get that token's id, so it cannot forge an EOD.

    Raises TokenizerError for a folder that is none, files that do not parse, or an EOD token that does not exist.
    """
    name = hub_name(path)
    fetched = fetch_from_hub(name, KNOWN_FILES) if name is not None else None
    folder = fetched.folder if fetched is not None else Path(path)
    backend, identity = load_backend(folder)
    give_back_memory()
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    segmentation = read_segmentation(folder)
    if segmentation is not None:
        whole = {"tokenizer": json.loads(identity), "segmenter": segmentation.segmenter}
        identity = canonical_json(whole | {"version": segmentation.version})
    vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    if len(vocabulary) < 2:
        raise TokenizerError(
            f"{folder}: the vocabulary has {len(vocabulary)} entries",
            remedy="the folder's vocabulary file is empty or was not found; fetch the folder again",
        )
    eod_token = eod or _eos_of(folder)
    if eod_token is None:
        raise TokenizerError(
            f"{folder}: {CONFIG_FILE} names no eos_token, so nothing can end a document",
            remedy="name one in the corpus config: tokenizer.eod",
        )
    if eod_token not in vocabulary:
        near = ", ".join(token for token in vocabulary if token.startswith(("<|", "[", "</")))[:200]
        raise TokenizerError(
            f"{folder}: the end-of-document token {eod_token!r} is not in the vocabulary",
            remedy=f"set tokenizer.eod to one that is, for example: {near or 'none that looks special'}",
        )
    return TextTokenizer(
        backend=backend,
        folder=folder,
        fingerprint="sha256:" + hashlib.sha256(identity).hexdigest(),
        size=backend.get_vocab_size(with_added_tokens=True),
        largest_id=max(vocabulary.values()),
        eod_token=eod_token,
        eod_id=vocabulary[eod_token],
        segmentation=segmentation,
        origin=str(fetched) if fetched is not None else None,
    )


def load_backend(folder: Path) -> tuple[Tokenizer, bytes]:
    """The tokenizer and the canonical JSON that identifies it."""
    if not folder.is_dir():
        raise TokenizerError(
            f"{folder}: no such tokenizer folder",
            remedy="give a folder that holds tokenizer.json, or train one: lmbatch tokenizer train --help",
        )
    try:
        if (folder / TOKENIZER_FILE).is_file():
            data = (folder / TOKENIZER_FILE).read_bytes()
            identity = canonical_json(json.loads(data))  # first, so that its values are gone when the backend is made
            return Tokenizer.from_buffer(data), identity
        backend = _from_vocabulary(folder)
    except TokenizerError:
        raise
    except Exception as error:  # the Rust library raises bare Exception for every kind of damage
        raise TokenizerError(f"{folder}: the tokenizer does not load: {error}", remedy="fetch it again") from error
    return backend, canonical_json(json.loads(backend.to_str()))


def _from_vocabulary(folder: Path) -> Tokenizer:
    settings = _settings(folder)
    if (folder / "vocab.txt").is_file():
        lower = bool(settings.get("do_lower_case", True))
        bert = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=lower)
        return Tokenizer.from_str(bert.to_str())
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        bpe = ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
        backend = Tokenizer.from_str(bpe.to_str())
        backend.add_special_tokens([token for token in (_eos_of(folder),) if token])
        return backend
    present = ", ".join(sorted(item.name for item in folder.iterdir())[:8]) or "nothing"
    raise TokenizerError(
        f"{folder}: holds no tokenizer (found: {present})",
        remedy="a tokenizer folder holds tokenizer.json, or vocab.txt, or vocab.json with merges.txt",
    )


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TokenizerError(f"{path}: not JSON: {error}", remedy="fetch the folder again") from error
    return value if isinstance(value, dict) else {}


def _eos_of(folder: Path) -> str | None:
    token = _settings(folder).get("eos_token")
    if isinstance(token, dict):  # older transformers write an AddedToken as a mapping
        token = token.get("content")
    return token if isinstance(token, str) else None
