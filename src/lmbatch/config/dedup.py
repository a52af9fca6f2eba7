"""De-duplication of a corpus: the same text twice, and almost the same text twice."""

from __future__ import annotations

from pydantic import Field, model_validator

from lmbatch.config.base import Bytes, Section, operational


class NearConfig(Section):
    """Near-duplicates by MinHash signatures over character n-grams, cut into bands.

    Two documents of Jaccard similarity s share a band with probability 1 - (1 - s^rows)^bands, an S-curve that
    rises around the threshold (1 / bands)^(1 / rows): 0.798 with the defaults, where s = 0.6, 0.7, 0.8, 0.9 are
    found with probability 0.04, 0.21, 0.66, 0.99 (Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, 3.4).
    """

    ngram: int = Field(5, ge=1, le=64, description="Characters of an n-gram (after normalisation, without spaces).")
    bands: int = Field(12, ge=1, le=256, description="Bands of a signature; sharing one makes a near-duplicate.")
    rows: int = Field(
        11, ge=1, le=256, description="Hash values in a band; the threshold is near (1/bands)^(1/rows), here 0.8."
    )
    seed: int = Field(1, ge=0, lt=2**63, description="Change it to draw other hash functions.")

    @property
    def threshold(self) -> float:
        """The Jaccard similarity around which the S-curve rises."""
        return float((1 / self.bands) ** (1 / self.rows))


class DedupConfig(Section):
    """Which duplicates are dropped. Of equal documents the first in the order of the plan is kept."""

    exact: bool = Field(
        True, description="Drop a text that has been seen (after NFKC, case folding, white space left out)."
    )
    near: NearConfig | None = Field(None, description="Drop a text that is almost one seen before; {} for defaults.")
    partition_bytes: Bytes = operational(
        4 * 2**30, description="Input per partition of the comparing stage: smaller means more and smaller tasks."
    )

    @model_validator(mode="after")
    def _does_something(self) -> DedupConfig:
        if not self.exact and self.near is None:
            raise ValueError("neither exact nor near: leave `dedup` out")
        return self
