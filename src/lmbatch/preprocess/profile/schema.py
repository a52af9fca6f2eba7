"""The stored form of a task's profile."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationError

from lmbatch.config.base import Section
from lmbatch.errors import StoreError
from lmbatch.store import FORMAT_VERSION, Split

SampleKind = Literal["kept", "changed", "dropped", "quarantined"]


class Counts(Section):
    """What came of a source's records. ``documents`` to ``text_bytes`` are of those that were written, as in a shard:
    tokens with EOD, bytes of UTF-8 after cleaning.
    """

    documents: int = Field(0, ge=0)
    tokens: int = Field(0, ge=0)
    text_bytes: int = Field(0, ge=0)
    dropped: int = Field(0, ge=0)
    quarantined: int = Field(0, ge=0)

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in Counts.model_fields})


class Sample(Section):
    """A record to look at, and where it lies.

    ``reason`` is that of a drop or quarantine, the rule for a changed document, empty for a kept one. ``text`` is a
    part of what was written (or of what was set aside), ``before`` the same part before cleaning. ``draw`` is what
    the sample was chosen by: of each kind and reason those with the smallest.
    """

    kind: SampleKind
    reason: str = ""
    draw: int = Field(ge=0, lt=2**64)
    path: str
    position: int
    text: str
    before: str | None = None
    detail: str = ""
    tokens: int | None = None


class TaskProfile(Section):
    """Lengths, sources and samples of one task. The counts add up to the task's ledger.

    ``tokens`` and ``characters`` are histograms by split: lower end of a bin → documents. ``sources`` are input files,
    or folders with a slash at their end. ``values`` are those of the config's ``report.source_field``: the most
    frequent ones, all ``other_values`` together, and the records ``without_value``.
    """

    format_version: int = FORMAT_VERSION
    task: str
    tokens: dict[Split, dict[int, int]]
    characters: dict[Split, dict[int, int]]
    sources: dict[str, Counts]
    values: dict[str, Counts] = Field(default_factory=dict)
    other_values: Counts = Counts()
    without_value: Counts = Counts()
    samples: tuple[Sample, ...] = ()


def parse_profile(data: bytes, where: str) -> TaskProfile:
    """Raises StoreError for bytes that are no profile, or one of another version."""
    try:
        profile = TaskProfile.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "(top)"
        raise StoreError(
            f"{where}: not a task's profile: {place}: {first['msg']}",
            remedy="it is damaged, or a newer lmbatch wrote it: run `lmbatch verify` on the store",
        ) from None
    if profile.format_version != FORMAT_VERSION:
        raise StoreError(
            f"{where}: written in format {profile.format_version}, this lmbatch reads format {FORMAT_VERSION}",
            remedy="use the lmbatch version that wrote it",
        )
    return profile
