"""The config of a tokenizer that is trained here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lmbatch.config.base import Bytes, Section, operational


class TokenizerConfig(Section):
    """A tokenizer config: `lmbatch tokenizer train --config configs/tokenizers/NAME.yaml`."""

    type: Literal["byte_bpe", "wordpiece", "word", "extend"] = Field(
        "byte_bpe",
        description="`byte_bpe` (GPT-2's), `wordpiece` (BERT's, a token for each ideograph), `word` (the most frequent "
        "words of a segmented sample), or `extend` (the tokenizer of `base` with `special_tokens` added to it).",
    )
    vocab_size: int = Field(gt=256, description="Entries, special tokens included; for `extend`, what must come out.")
    min_frequency: int = Field(2, ge=1, description="A pair, or a word, seen less often gets no entry.")
    special_tokens: tuple[str, ...] = Field(
        ("<|endoftext|>",),
        description="Special tokens, first ids first. <s> or [CLS], </s> or [SEP], and pad, unk, mask in either "
        "spelling get the roles that their names say.",
    )
    eod: str = Field("<|endoftext|>", description="Which of them ends a document; eos, and what has no other token.")
    post_processor: Literal["none", "roberta", "bert"] = Field(
        "none",
        description="What plain transformers puts around a text (<s> … </s> or [CLS] … [SEP]); shards hold none of it.",
    )
    lowercase: bool = Field(True, description="wordpiece: are letters made small and accents taken off, as BERT does?")
    segmenter: Literal["jieba"] = Field("jieba", description="word: what cuts text into words (pip: lmbatch[zh]).")
    max_length: int = Field(1_000_000, gt=0, description="model_max_length written into the tokenizer's config.")
    corpus: str | None = operational(
        None, description="Corpus config whose cleaned documents it is trained on (a path); `extend` needs none."
    )
    base: str | None = operational(None, description="extend: the folder of the tokenizer that is extended.")
    sample_bytes: Bytes = Field(
        2 * 2**30, description="Text used at most, in UTF-8 bytes; documents are drawn by hash, the same every time."
    )
    seed: int = Field(0, description="Seed of that draw.")
    out: str = operational(description="Folder that the tokenizer is written to.")

    @model_validator(mode="after")
    def _complete(self) -> TokenizerConfig:
        if self.eod not in self.special_tokens:
            raise ValueError(f"`eod` {self.eod!r} is not among `special_tokens`")
        if self.type == "extend" and self.base is None:
            raise ValueError("type `extend` needs `base`: the folder of the tokenizer to extend")
        if self.type != "extend" and self.corpus is None:
            raise ValueError(f"type `{self.type}` needs `corpus`: what it is trained on")
        if self.type in ("wordpiece", "word") and "[UNK]" not in self.special_tokens:
            raise ValueError(f"type `{self.type}` needs [UNK] among `special_tokens`, for what has no entry")
        if self.post_processor != "none" and not any({*pair} <= {*self.special_tokens} for pair in POST_PROCESSED):
            raise ValueError(f"`post_processor: {self.post_processor}` needs <s> and </s>, or [CLS] and [SEP]")
        return self


# First and last token around a text, as RoBERTa's and as BERT's checkpoints spell them.
POST_PROCESSED = (("<s>", "</s>"), ("[CLS]", "[SEP]"))
