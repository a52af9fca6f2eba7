"""Everything that the report of a corpus says, as plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lmbatch.config import identity
from lmbatch.errors import LmbatchError, ObjectNotFoundError
from lmbatch.preprocess import Plan, load_plan, read_receipts
from lmbatch.report.corpus.duplicates import DuplicateClusters, duplicate_clusters
from lmbatch.report.corpus.profiles import MergedProfile, merge_profiles
from lmbatch.store import MANIFEST_KEY, SPLITS, Ledger, Receipt, Split, Store, parse_manifest

_SLOWEST = 5


@dataclass(frozen=True)
class SplitTotals:
    """What the shards of a split hold. ``tokens`` with EOD; ``text_bytes`` of UTF-8; ``stored_bytes`` of .bin files."""

    shards: int = 0
    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    stored_bytes: int = 0


@dataclass(frozen=True)
class TaskWork:
    """What a task cost: wall and processor seconds, and where its input began."""

    task: str
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    input_bytes: int
    tokens: int
    place: str


@dataclass(frozen=True)
class CorpusReport:
    """A store as it is now, finished or not. ``digest`` is the manifest's, None while there is none.

    ``seconds`` and ``cpu_seconds`` are sums over the tasks that are done, ``peak_memory_bytes`` is of the largest
    worker. ``problems`` are sentences about what could not be read.
    """

    store: str
    plan: Plan
    digest: str | None
    tasks: int
    tasks_done: int
    input_bytes_done: int
    ledger: Ledger
    splits: dict[Split, SplitTotals]
    engines: dict[str, int]
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    slowest: tuple[TaskWork, ...]
    profile: MergedProfile
    duplicates: tuple[DuplicateClusters, ...]
    problems: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Is every task done and the manifest there?"""
        return self.digest is not None and self.tasks_done == self.tasks

    @property
    def total(self) -> SplitTotals:
        """All splits together."""
        names = SplitTotals.__dataclass_fields__
        return SplitTotals(**{name: sum(getattr(s, name) for s in self.splits.values()) for name in names})

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        profile = {
            name: getattr(self.profile, name) for name in ("tasks", "tokens", "characters")
        } | {
            name: {key: counts.model_dump() for key, counts in getattr(self.profile, name).items()}
            for name in ("sources", "values")
        }  # fmt: skip
        profile["other_values"] = self.profile.other_values.model_dump()
        profile["without_value"] = self.profile.without_value.model_dump()
        profile["samples"] = [sample.model_dump() for sample in self.profile.samples]
        plain = {name: getattr(self, name) for name in _PLAIN}
        return plain | {
            "corpus": self.plan.config.corpus.name,
            "plan": self.plan.fingerprint,
            "config": identity(self.plan.config),
            "finished": self.finished,
            "input_bytes": self.plan.input_bytes,
            "ledger": self.ledger.model_dump(),
            "splits": {split: asdict(totals) for split, totals in self.splits.items()},
            "slowest": [asdict(work) for work in self.slowest],
            "profile": profile,
            "duplicates": {
                found.reason: {
                    "clusters": found.clusters,
                    "sizes": found.sizes,
                    "largest": [entry.model_dump() for entry in found.largest],
                }
                for found in self.duplicates
            },
        }


_PLAIN = (
    "store", "digest", "tasks", "tasks_done", "input_bytes_done", "engines", "seconds", "cpu_seconds",
    "peak_memory_bytes", "problems",
)  # fmt: skip


def corpus_report(store: Store, progress: Callable[[int, int], None] = lambda done, total: None) -> CorpusReport:
    """Read plan, receipts and profiles. ``progress`` is told how many profiles of how many are read.

    Raises ObjectNotFoundError if the store holds no plan, StoreError for a receipt that cannot be trusted.
    """
    plan = load_plan(store)
    receipts = read_receipts(store, plan.tasks)
    ordered = [receipts[task.id] for task in plan.tasks if task.id in receipts]
    entries = [receipt.profile for receipt in ordered if receipt.profile is not None]
    digest, problems = _digest(store)
    profile = merge_profiles(store, entries, lambda done: progress(done, len(entries)))
    return CorpusReport(
        store=store.uri,
        plan=plan,
        digest=digest,
        tasks=len(plan.tasks),
        tasks_done=len(ordered),
        input_bytes_done=sum(receipt.input_bytes for receipt in ordered),
        ledger=Ledger.total(receipt.ledger for receipt in ordered),
        splits=_splits(ordered),
        engines=dict(sorted(Counter(receipt.engine for receipt in ordered).items())),
        seconds=sum(receipt.seconds for receipt in ordered),
        cpu_seconds=sum(receipt.cpu_seconds for receipt in ordered),
        peak_memory_bytes=max((receipt.peak_memory_bytes for receipt in ordered), default=0),
        slowest=_slowest(ordered),
        profile=profile,
        duplicates=duplicate_clusters(store, plan),
        problems=(*problems, *profile.problems),
    )


def _digest(store: Store) -> tuple[str | None, list[str]]:
    try:
        return parse_manifest(store.read(MANIFEST_KEY), store.where(MANIFEST_KEY)).digest, []
    except ObjectNotFoundError:
        return None, []
    except LmbatchError as error:
        return None, [error.message]


def _splits(receipts: Iterable[Receipt]) -> dict[Split, SplitTotals]:
    sums: Mapping[Split, Counter[str]] = {split: Counter() for split in SPLITS}
    for receipt in receipts:
        for shard in receipt.shards:
            sums[shard.split].update(
                shards=1, documents=shard.documents, tokens=shard.tokens, text_bytes=shard.text_bytes,
                stored_bytes=shard.bin.size,
            )  # fmt: skip
    return {split: SplitTotals(**counts) for split, counts in sums.items() if counts}


def _slowest(receipts: Iterable[Receipt]) -> tuple[TaskWork, ...]:
    ranked = sorted(receipts, key=lambda receipt: (-receipt.seconds, receipt.task))[:_SLOWEST]
    return tuple(
        TaskWork(
            task=receipt.task,
            seconds=receipt.seconds,
            cpu_seconds=receipt.cpu_seconds,
            peak_memory_bytes=receipt.peak_memory_bytes,
            input_bytes=receipt.input_bytes,
            tokens=sum(shard.tokens for shard in receipt.shards),
            place=f"{receipt.pieces[0].path} @ {receipt.pieces[0].start}" if receipt.pieces else "",
        )
        for receipt in ranked
    )
