"""An exported folder with a model that writes Chinese characters at random, for as long as it may."""

from __future__ import annotations

import json
from pathlib import Path

EOD = "<|endoftext|>"
CONTEXT = 2048
_CHARACTERS = [chr(code) for code in range(0x4E00, 0x4E00 + 1500)]
_CARD = """\
---
library_name: transformers
---

# tiny_zh

A causal language model (gpt2), trained from scratch on the corpus `none` with lmbatch.

| | |
|---|---|
| Parameters | {parameters} |
| Context | {context} tokens |
| Manifest digest | `sha256:0123456789abcdef` |
| Tokens seen | 1,000 |
| Note | <b>bold</b> ![picture](http://192.0.2.1/p.png) |

## Loading
"""


def write_export(folder: Path, *, layers: int = 2, width: int = 64) -> Path:
    """A GPT-2 with a WordPiece tokenizer of characters: what it decodes has spaces that have to be removed."""
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel

    folder.mkdir(parents=True)
    names = [EOD, "[UNK]", "，", "。", *_CHARACTERS]
    tokenizer = Tokenizer(models.WordPiece({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)  # spaces around each character
    tokenizer.add_special_tokens([EOD])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOD, "model_max_length": CONTEXT}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(names), n_positions=CONTEXT, n_layer=layers, n_embd=width, n_head=2, initializer_range=0.5,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.wte.weight[:2] = 0  # far below the best: a text ends at its limit, and knows every character
    model.save_pretrained(folder)
    card = _CARD.format(parameters=f"{model.num_parameters():,}", context=CONTEXT)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder
