"""How documents become the examples that training reads."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lmbatch.config.base import Section

ChunkingMode = Literal["packed", "lines", "split_lines", "truncate", "drop_short"]


class ChunkingConfig(Section):
    """``packed`` and ``split_lines`` lose no token. The others make examples of at most ``length`` tokens, for
    comparison with recipes that work so; the ledger tells how many tokens they throw away."""

    mode: ChunkingMode = Field(
        "packed", description="packed: documents end to end, each ended by EOD, cut only while training; lines: each "
        "line of a document that is not blank is an example, cut at length - 1 tokens, and EOD; split_lines: the same, "
        "but what is cut off goes on in further examples; truncate: as lines, "
        "with each document; drop_short: a document's tokens in chunks of exactly `length`, without EOD, and what is "
        "shorter is thrown away."
    )  # fmt: skip
    length: int | None = Field(
        None, ge=2, lt=2**31, description="Most tokens of an example, EOD included; for every mode but packed."
    )

    @model_validator(mode="after")
    def _length_fits_the_mode(self) -> ChunkingConfig:
        if self.mode == "packed" and self.length is not None:
            raise ValueError("packed cuts nothing, so it takes no length; data.sequence_length decides while training")
        if self.mode != "packed" and self.length is None:
            raise ValueError(f"{self.mode} needs a length, for example 512")
        return self

    @property
    def most(self) -> int:
        """The most tokens that an example may have. Only for modes that cut."""
        assert self.length is not None
        return self.length

    @property
    def ends_with_eod(self) -> bool:
        """Is EOD the last token of every example?"""
        return self.mode != "drop_short"
