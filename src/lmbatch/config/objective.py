"""The config of what a model learns to predict."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lmbatch.config.base import Section


class ObjectiveConfig(Section):
    """``causal``: each token from those before it. ``masked``: hidden tokens from all around them (BERT,
    arXiv:1810.04805, section 3.1), drawn anew in every epoch as in RoBERTa (arXiv:1907.11692, section 4.1)."""

    name: Literal["causal", "masked"] = Field(
        "causal", description="causal: the next token; masked: tokens that are hidden in the text."
    )
    mask_share: float = Field(
        0.15, gt=0, lt=1, description="masked: chance of each token to be predicted; special tokens never are, and at "
        "least one token of a sample is."
    )  # fmt: skip
    hidden_share: float = Field(
        0.8, ge=0, le=1, description="masked: share of these that the model sees as the mask token."
    )
    random_share: float = Field(
        0.1, ge=0, le=1, description="masked: share of these that it sees as a random ordinary token; the rest stay."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> ObjectiveConfig:
        if self.name == "causal" and self.model_fields_set - {"name"}:
            raise ValueError(f"{', '.join(sorted(self.model_fields_set - {'name'}))}: only `masked` takes that")
        if self.hidden_share + self.random_share > 1:
            raise ValueError("hidden_share and random_share are shares of one whole: together 1 at most")
        return self
