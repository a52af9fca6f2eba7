"""The profiles of all tasks, laid together while they are read: memory for a few of them, however many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from lmbatch.errors import ObjectNotFoundError, StoreError
from lmbatch.preprocess.profile import (
    Counts,
    Reservoir,
    Sample,
    TaskProfile,
    folder_depth,
    name_at,
    parse_profile,
)
from lmbatch.store import FileEntry, Split, Store

SAMPLES_SHOWN = 3  # of each kind and reason
_MOST_VALUES = 1000

Bins = dict[int, int]


@dataclass
class MergedProfile:
    """The sums over ``tasks`` profiles; ``problems`` says which could not be read."""

    tasks: int = 0
    tokens: dict[Split, Bins] = field(default_factory=dict)
    characters: dict[Split, Bins] = field(default_factory=dict)
    sources: dict[str, Counts] = field(default_factory=dict)
    values: dict[str, Counts] = field(default_factory=dict)
    other_values: Counts = field(default_factory=Counts)
    without_value: Counts = field(default_factory=Counts)
    samples: tuple[Sample, ...] = ()
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SourceRow:
    """A line of a table of sources: a file, a folder (with a slash at its end), a value, or many together."""

    name: str
    counts: Counts
    together: int = 1  # how many names the line stands for


def merge_profiles(
    store: Store, entries: Iterable[FileEntry], progress: Callable[[int], None] = lambda done: None
) -> MergedProfile:
    """Read and add up. One that is missing or damaged is a problem in the result, not an error."""
    merged, samples = MergedProfile(), Reservoir(SAMPLES_SHOWN)
    keys = [entry.key for entry in entries]
    for number, (key, data) in enumerate(zip(keys, store.read_many(keys), strict=True), start=1):
        try:
            _add(merged, samples, parse_profile(_there(data, key), store.where(key)))
        except StoreError as error:
            merged.problems.append(error.message)
        progress(number)
    merged.samples = tuple(samples)
    return merged


def _there(data: bytes | None, key: str) -> bytes:
    if data is None:
        raise ObjectNotFoundError(f"{key}: no such object, though its task is done")
    return data


def _add(merged: MergedProfile, samples: Reservoir, profile: TaskProfile) -> None:
    merged.tasks += 1
    for into, bins in ((merged.tokens, profile.tokens), (merged.characters, profile.characters)):
        for split, counts in bins.items():
            _add_bins(into.setdefault(split, {}), counts)
    for sources, more in ((merged.sources, profile.sources), (merged.values, profile.values)):
        for name, counted in more.items():
            sources[name] = sources[name] + counted if name in sources else counted
    merged.other_values += profile.other_values
    merged.without_value += profile.without_value
    for sample in profile.samples:
        samples.add(sample)
    _bound_values(merged)


def _add_bins(into: Bins, counts: Mapping[int, int]) -> None:
    for lower, count in counts.items():
        into[lower] = into.get(lower, 0) + count


def _bound_values(merged: MergedProfile) -> None:
    """Only the most frequent values stay apart, for a field that names every document differently."""
    if len(merged.values) <= _MOST_VALUES:
        return
    ranked = sorted(merged.values, key=lambda name: (-merged.values[name].tokens, name))
    for name in ranked[_MOST_VALUES // 2 :]:
        merged.other_values += merged.values.pop(name)


def ranked_sources(sources: Mapping[str, Counts], limit: int) -> list[SourceRow]:
    """At most ``limit`` rows, most tokens first: by folder if the names share some, else the rest in one row."""
    depth = folder_depth(sources, limit) or None  # a depth of 0 would leave a single row
    groups: dict[str, tuple[Counts, int]] = {}
    for name, counts in sources.items():
        group = name_at(name, depth)
        before, number = groups.get(group, (Counts(), 0))
        groups[group] = (before + counts, number + 1)
    rows = [SourceRow(name, counts, number) for name, (counts, number) in groups.items()]
    rows.sort(key=lambda row: (-row.counts.tokens, row.name))
    if len(rows) <= limit:
        return rows
    rest = rows[limit - 1 :]
    return [*rows[: limit - 1], SourceRow("", sum((row.counts for row in rest), Counts()), len(rest))]
