"""The config of a tokenizer that is trained here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lmbatch.config.base import Bytes, Section, operational


class TokenizerConfig(Section):
    """A tokenizer config: `lmbatch tokenizer train --config configs/tokenizers/NAME.yaml`."""

    type: Literal["byte_bpe"] = Field("byte_bpe", description="Kind of tokenizer.")
    vocab_size: int = Field(gt=256, description="Entries, special tokens included.")
    min_frequency: int = Field(2, ge=1, description="A pair seen less often is not merged.")
    special_tokens: tuple[str, ...] = Field(("<|endoftext|>",), description="Special tokens, first ids first.")
    eod: str = Field("<|endoftext|>", description="Which of them ends a document; also bos, eos and pad.")
    max_length: int = Field(1_000_000, gt=0, description="model_max_length written into the tokenizer's config.")
    corpus: str = operational(description="Corpus config whose cleaned documents it is trained on (a path).")
    sample_bytes: Bytes = Field(
        2 * 2**30, description="Text used at most, in UTF-8 bytes; documents are drawn by hash, the same every time."
    )
    seed: int = Field(0, description="Seed of that draw.")
    out: str = operational(description="Folder that the tokenizer is written to.")

    @model_validator(mode="after")
    def _eod_is_special(self) -> TokenizerConfig:
        if self.eod not in self.special_tokens:
            raise ValueError(f"`eod` {self.eod!r} is not among `special_tokens`")
        return self
