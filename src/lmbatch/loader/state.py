"""All that is needed to go on with the very next sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lmbatch.errors import ResumeError


@dataclass(frozen=True, slots=True)
class LoaderState:
    """``samples_consumed`` is the global number of the next sample, counted over all ranks and epochs."""

    manifest_digest: str
    seed: int
    samples_consumed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LoaderState:
        """Raises ResumeError unless ``values`` are what to_dict() gives."""
        match dict(values):
            case {"manifest_digest": str(digest), "seed": int(seed), "samples_consumed": int(consumed), **rest} if (
                not rest and consumed >= 0
            ):
                return cls(digest, seed, consumed)
        raise ResumeError(
            f"not the state of a loader: {dict(values)!r}",
            remedy="the checkpoint is damaged or of another version: resume from an older one",
        )
