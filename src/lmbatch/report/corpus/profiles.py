"""The profiles of all tasks, laid together while they are read: memory for a few of them, however many there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from lmbatch.errors import LmbatchError
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
_READERS = 16
_AHEAD = 64  # profiles that are read before they are needed
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
    for number, found in enumerate(_read_ahead(store, entries), start=1):
        if isinstance(found, TaskProfile):
            _add(merged, samples, found)
        else:
            merged.problems.append(found)
        progress(number)
    merged.samples = tuple(samples)
    return merged


def _read_ahead(store: Store, entries: Iterable[FileEntry]) -> Iterator[TaskProfile | str]:
    """In order; what waits to be taken is bounded, which a pool's own map would not be."""

    def read(entry: FileEntry) -> TaskProfile | str:
        try:
            return parse_profile(store.read(entry.key), store.where(entry.key))
        except LmbatchError as error:
            return error.message

    left = iter(entries)
    with ThreadPoolExecutor(_READERS) as pool:
        waiting: deque[Future[TaskProfile | str]] = deque(pool.submit(read, entry) for entry in islice(left, _AHEAD))
        while waiting:
            found = waiting.popleft().result()
            waiting.extend(pool.submit(read, entry) for entry in islice(left, 1))
            yield found


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
