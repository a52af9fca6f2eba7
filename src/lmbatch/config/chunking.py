"""How documents become the examples that training reads."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lmbatch.config.base import Section, added

ChunkingMode = Literal["packed", "lines", "split_lines", "truncate", "drop_short", "best_fit"]
BUFFER_TOKENS = 2**22
_LONGEST_BEST_FIT = 2**20  # the room that is left in examples is kept as a set of so many numbers


class ChunkingConfig(Section):
    """``packed``, ``split_lines`` and ``best_fit`` lose no token. The others make examples of at most ``length``
    tokens, for comparison with recipes that work so; the ledger tells how many tokens they throw away."""

    mode: ChunkingMode = Field(
        "packed", description="packed: documents end to end, each ended by EOD, cut only while training; lines: each "
        "line of a document that is not blank is an example, cut at length - 1 tokens, and EOD; split_lines: the same, "
        "but what is cut off goes on in further examples; truncate: as lines, "
        "with each document; drop_short: a document's tokens in chunks of exactly `length`, without EOD, and what is "
        "shorter is thrown away; best_fit: whole documents with their EODs, together in examples of at most `length`, "
        "so that only a document longer than that is cut."
    )  # fmt: skip
    length: int | None = Field(
        None, ge=2, lt=2**31, description="Most tokens of an example, EOD included; for every mode but packed."
    )
    buffer_tokens: int | None = added(
        None, ge=2, lt=2**31, description="best_fit: documents of a task are packed together as soon as they have so "
        "many tokens; more leaves less padding and takes more memory. Default: 4194304."
    )  # fmt: skip

    @model_validator(mode="after")
    def _length_fits_the_mode(self) -> ChunkingConfig:
        if self.mode == "packed" and self.length is not None:
            raise ValueError("packed cuts nothing, so it takes no length; data.sequence_length decides while training")
        if self.mode != "packed" and self.length is None:
            raise ValueError(f"{self.mode} needs a length, for example 512")
        if self.mode != "best_fit" and self.buffer_tokens is not None:
            raise ValueError(f"buffer_tokens is for best_fit: {self.mode} packs nothing")
        return self

    @model_validator(mode="after")
    def _length_can_be_packed(self) -> ChunkingConfig:
        if self.packs and self.most > _LONGEST_BEST_FIT:
            raise ValueError(f"best_fit makes examples of at most {_LONGEST_BEST_FIT} tokens")
        if self.packs and self.buffer < self.most:
            raise ValueError(f"buffer_tokens {self.buffer} does not fill one example of length {self.most}")
        return self

    @property
    def most(self) -> int:
        """The most tokens that an example may have. Only for modes that cut."""
        assert self.length is not None
        return self.length

    @property
    def packs(self) -> bool:
        """May an example hold several documents, each ended by EOD?"""
        return self.mode == "best_fit"

    @property
    def buffer(self) -> int:
        """The tokens of documents that are packed together, at least. Only for a mode that packs."""
        return BUFFER_TOKENS if self.buffer_tokens is None else self.buffer_tokens

    def ends_with_eod(self, tokens: int) -> bool:
        """Must EOD be the last one of an example's ``tokens``? A document that best_fit cuts fills whole examples."""
        return self.mode != "drop_short" and not (self.packs and tokens == self.most)
