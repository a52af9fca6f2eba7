"""What reports and the driver want to know of finished tasks: a few numbers of each receipt, and their sums."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from lmbatch.errors import StoreError
from lmbatch.store import FORMAT_VERSION, RECEIPTS_PREFIX, Ledger, Store, TokenLedger, parse_receipt

_SLOWEST = 10


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """A finished task. ``file`` is the first of its input files; counts are by split, reason or rule."""

    task: str
    file: str
    engine: str
    seconds: float
    cpu_seconds: float
    memory_bytes: int
    input_bytes: int
    tokens: int
    records: int
    documents: Mapping[str, int]
    dropped: Mapping[str, int]
    quarantined: Mapping[str, int]
    changed: Mapping[str, int]
    cut: Mapping[str, Any] | None  # the token ledger, where documents were cut
    shards: int = 0
    stored_bytes: int = 0  # of all files of its shards, or its payload for the stages before
    traffic: Mapping[str, int] | None = None  # with the store; None if the receipt is older than the counters
    input_traffic: Mapping[str, int] | None = None
    unread: Mapping[str, int] = field(default_factory=dict)

    @property
    def bytes_per_second(self) -> float:
        """Of input."""
        return self.input_bytes / self.seconds if self.seconds else 0.0


@dataclass
class Tally:
    """Sums over finished tasks, each added once; adding one more takes no longer when there are many."""

    tasks: int = 0
    input_bytes: int = 0
    tokens: int = 0
    records: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory_bytes: int = 0  # of the largest worker
    documents: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    engines: dict[str, int] = field(default_factory=dict)
    shards: int = 0
    stored_bytes: int = 0
    traffic: dict[str, int] = field(default_factory=dict)
    input_traffic: dict[str, int] = field(default_factory=dict)
    tasks_with_traffic: int = 0
    _cut: dict[str, int] = field(default_factory=dict)
    _thrown_away: dict[str, int] = field(default_factory=dict)
    _slowest: list[tuple[float, str, TaskFacts]] = field(default_factory=list)

    def add(self, facts: TaskFacts) -> None:
        """One more finished task."""
        self.tasks += 1
        self.input_bytes += facts.input_bytes
        self.tokens += facts.tokens
        self.records += facts.records
        self.seconds += facts.seconds
        self.cpu_seconds += facts.cpu_seconds
        self.memory_bytes = max(self.memory_bytes, facts.memory_bytes)
        add_counts(self.documents, facts.documents)
        add_counts(self.dropped, facts.dropped)
        add_counts(self.quarantined, facts.quarantined)
        add_counts(self.changed, facts.changed)
        add_counts(self.unread, facts.unread)
        if facts.cut is not None:
            self._cut = self._cut or {"encoded": 0, "eod": 0}
            add_counts(self._cut, {"encoded": facts.cut["encoded"], "eod": facts.cut["eod"]})
            if facts.cut.get("padding") is not None:
                add_counts(self._cut, {"padding": facts.cut["padding"]})
            add_counts(self._thrown_away, facts.cut["thrown_away"])
        self.engines[facts.engine] = self.engines.get(facts.engine, 0) + 1
        self.shards += facts.shards
        self.stored_bytes += facts.stored_bytes
        if facts.traffic is not None:
            self.tasks_with_traffic += 1
            add_counts(self.traffic, facts.traffic)
            add_counts(self.input_traffic, facts.input_traffic or {})
        push = heapq.heappush if len(self._slowest) < _SLOWEST else heapq.heappushpop
        push(self._slowest, (facts.seconds, facts.task, facts))

    @property
    def slowest(self) -> tuple[TaskFacts, ...]:
        """The tasks that took longest, the worst first."""
        return tuple(facts for _, _, facts in sorted(self._slowest, reverse=True))

    @property
    def documents_out(self) -> int:
        """Documents that were written, over all splits."""
        return sum(self.documents.values())

    @property
    def ledger(self) -> Ledger:
        """What became of every record so far."""
        sums = {"documents": self.documents, "dropped": self.dropped, "quarantined": self.quarantined,
                "changed": self.changed, "unread": self.unread}  # fmt: skip
        ordered = {name: dict(sorted(counts.items())) for name, counts in sums.items()}
        thrown_away = dict(sorted(self._thrown_away.items()))
        tokens = TokenLedger(**self._cut, thrown_away=thrown_away) if self._cut else None
        return Ledger(records=self.records, tokens=tokens, **ordered)


def add_counts(into: dict[str, int], counts: Mapping[str, int]) -> None:
    """Add counts by name to others."""
    for name, count in counts.items():
        into[name] = into.get(name, 0) + count


def read_facts(store: Store, tasks: Iterable[str]) -> Iterator[TaskFacts]:
    """The facts of those of these tasks that have a receipt. Raises StoreError for one that cannot be trusted."""
    keys = {task: f"{RECEIPTS_PREFIX}{task}.json" for task in tasks}
    for (task, key), data in zip(keys.items(), store.read_many(list(keys.values())), strict=True):
        if data is None:
            continue
        facts = parse_facts(data, store.where(key))
        if facts.task != task:
            raise StoreError(
                f"{store.where(key)}: is the receipt of {facts.task}",
                remedy="run `lmbatch verify` on the store, then `lmbatch repair`",
            )
        yield facts


def list_finished(store: Store, tasks: Collection[str]) -> Sequence[str]:
    """Which of these tasks have a receipt, in the order of their names: one listing instead of a question for each."""
    names = (info.key.removeprefix(RECEIPTS_PREFIX).removesuffix(".json") for info in store.list(RECEIPTS_PREFIX))
    return [name for name in names if name in tasks]


def parse_facts(data: bytes, where: str) -> TaskFacts:
    """The facts of a stored receipt, without looking at the rest of it: there may be a hundred thousand.

    Raises StoreError for bytes that are no receipt.
    """
    try:
        return _facts(orjson.loads(data))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return _facts(parse_receipt(data, where).model_dump(mode="json"))  # says what is wrong with it


def _facts(value: dict[str, Any]) -> TaskFacts:
    if value["format_version"] != FORMAT_VERSION:
        raise ValueError("another version")
    if "payload" in value:
        return _facts_of_stage(value)
    ledger, pieces = value["ledger"], value["pieces"]
    return TaskFacts(
        task=value["task"],
        file=pieces[0]["path"] if pieces else "",
        engine=value["engine"],
        seconds=float(value["seconds"]),
        cpu_seconds=float(value["cpu_seconds"]),
        memory_bytes=int(value["peak_memory_bytes"]),
        input_bytes=int(value["input_bytes"]),
        tokens=sum([shard["tokens"] for shard in value["shards"]]),
        records=int(ledger["records"]),
        documents=ledger["documents"],
        dropped=ledger["dropped"],
        quarantined=ledger["quarantined"],
        changed=ledger.get("changed", {}),
        cut=ledger.get("tokens"),
        shards=len(value["shards"]),
        stored_bytes=sum([shard[name]["size"] for shard in value["shards"] for name in ("bin", "idx", "docs")]),
        traffic=value.get("traffic"),
        input_traffic=value.get("input_traffic"),
        unread=ledger.get("unread", {}),
    )


def _facts_of_stage(value: dict[str, Any]) -> TaskFacts:
    """Of a task that signed documents or compared signatures: no document has been written yet."""
    return TaskFacts(
        task=value["task"],
        file=value["pieces"][0]["path"] if value.get("pieces") else "",
        engine="",
        seconds=float(value["seconds"]),
        cpu_seconds=float(value["cpu_seconds"]),
        memory_bytes=int(value["peak_memory_bytes"]),
        input_bytes=int(value["input_bytes"]),
        tokens=0,
        records=sum([piece["records"] for piece in value.get("pieces", ())]),
        documents={"signed": int(value["documents"])} if "documents" in value else {},
        dropped={},
        quarantined={},
        changed={},
        cut=None,
        stored_bytes=int(value["payload"]["size"]),
        traffic=value.get("traffic"),
        input_traffic=value.get("input_traffic"),
    )
