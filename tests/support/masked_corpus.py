"""English lines, a byte-level BPE trained on them with RoBERTa's special tokens, and shards of examples."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from lmbatch.config import PreprocessConfig, TokenizerConfig, TrainConfig
from lmbatch.config.load import build, merge
from lmbatch.tokens.train import train_tokenizer
from support.drive import preprocess_here
from support.tiny_run import tiny_settings

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
LENGTH = 23  # tokens of an example, its end included
WIDTH = LENGTH + 1  # with the first token
TINY_ROBERTA = {
    "type": "roberta",
    "config": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
}
STILL = {"config": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}}
_WHO = ("the old king", "a young merchant", "the faithful servant", "every honest judge", "the cruel queen")
_DOES = ("speaks of", "remembers", "has lost", "shall find", "never trusted")
_WHAT = ("the silver ring", "a quiet harbour", "the northern road", "his own brother", "the empty throne")


def lines(count: int = 400, seed: int = 0) -> list[str]:
    """Sentences, some alone and some in lines that are longer than an example."""
    rng = random.Random(seed)

    def sentence() -> str:
        return f"{rng.choice(_WHO)} {rng.choice(_DOES)} {rng.choice(_WHAT)} {rng.randrange(1000)}."

    return [" ".join(sentence() for _ in range(rng.choice((1, 1, 1, 2, 5)))) for _ in range(count)]


def preprocess_config(root: Path, **changes: Any) -> PreprocessConfig:
    """Of the corpus under ``root``."""
    values = {
        "corpus": {"name": "lines", "format": "txt_lines", "raw": str(root / "raw"), "include": ["*.txt"]},
        "tokenizer": {"path": str(root / "tokenizer")},
        "chunking": {"mode": "split_lines", "length": LENGTH},
        "split": {"validation_fraction": 0.1},
        "store": str(root / "store"),
        "spool": str(root / "spool"),
        **changes,
    }
    return build(PreprocessConfig, values, "lines")


def write_corpus(root: Path) -> str:
    """Raw lines, tokenizer, shards; the address of the store."""
    (root / "raw").mkdir(parents=True)
    (root / "raw" / "lines.txt").write_text("\n".join(lines()) + "\n\n  \n", encoding="utf-8")
    config = preprocess_config(root)
    train_tokenizer(
        TokenizerConfig(
            vocab_size=400, special_tokens=SPECIAL, eod="</s>", post_processor="bert", corpus="-", max_length=512,
            out=str(root / "tokenizer"),
        ),
        config,
    )  # fmt: skip
    preprocess_here(config)
    return str(root / "store")


def masked_settings(store: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """The tiny run of support/tiny_run.py, masked, on this corpus."""
    settings = {**tiny_settings(store, folder), "objective": {"name": "masked"}, "model": TINY_ROBERTA}
    return merge(merge(settings, {"data": {"sequence_length": WIDTH}}), changes)


def masked_config(store: str, folder: Path, **changes: Any) -> TrainConfig:
    """The same, checked."""
    return build(TrainConfig, masked_settings(store, folder, **changes), "masked")
