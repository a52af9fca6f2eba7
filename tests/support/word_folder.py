"""A word vocabulary's folder, and an untrained GPT-2 for it, as an export would lie there."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from lmbatch.config import TokenizerConfig
from lmbatch.tokens import kinds
from lmbatch.tokens.segmentation import build_segmenter, installed

SPECIAL = ("[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]")
TEXT = "第一条 为了保护公民的权利，制定本法。国家保护人民。Hello world, the law protects people. 公元2020年有1,000人。"
PADDING = 6  # rows of the model's table beyond the vocabulary


def write_words(folder: Path) -> Path:
    """The tokenizer alone, made from TEXT."""
    folder.mkdir(parents=True, exist_ok=True)
    config = TokenizerConfig(
        type="word", vocab_size=300, min_frequency=1, special_tokens=SPECIAL, eod="[SEP]", corpus="none", out="none"
    )
    segmentation = installed("jieba")
    backend = kinds.word(config, [TEXT], build_segmenter(segmentation, SPECIAL))
    backend.save(str(folder / "tokenizer.json"))
    (folder / "segmentation.json").write_text(segmentation.to_json(), encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "[SEP]", "unk_token": "[UNK]",
                "pad_token": "[PAD]", "bos_token": "[CLS]", "model_max_length": 64}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def write_word_model(folder: Path, *, forbidden: bool = False, padding: int = PADDING) -> Path:
    """Tokenizer and model. ``forbidden``: [UNK] or a row beyond the vocabulary is by far the likeliest everywhere."""
    write_words(folder)
    entries = len(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=entries + padding, n_positions=64, n_embd=32, n_layer=2, n_head=2,
                   eos_token_id=0, bos_token_id=0, pad_token_id=0)
    )  # fmt: skip
    if forbidden:
        with torch.no_grad():
            direction = torch.full((32,), 5.0)
            direction[::2] = -5.0
            model.get_input_embeddings().weight[4] = direction
            model.get_input_embeddings().weight[-1] = -direction
    model.save_pretrained(folder)
    return folder
