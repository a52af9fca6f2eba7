"""A Hugging Face folder as somebody else would have left it: a tiny BLOOM for the tokenizer of the tiny corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BloomConfig, BloomForCausalLM

from support.tiny_corpus import write_tokenizer

ROWS = 64  # the tokenizer has fewer entries: the table is padded, as BLOOM's is
BLOOM = {"vocab_size": ROWS, "hidden_size": 32, "n_layer": 2, "n_head": 2, "eos_token_id": 0, "bos_token_id": 0}


def write_base(folder: Path, *, seed: int = 7, pickle: bool = False, **changes: Any) -> Path:
    """Weights in half precision, config.json and the tokenizer's files."""
    torch.manual_seed(seed)
    model = BloomForCausalLM(BloomConfig(**{**BLOOM, **changes})).half()
    model.save_pretrained(folder)
    if pickle:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return write_tokenizer(folder)
