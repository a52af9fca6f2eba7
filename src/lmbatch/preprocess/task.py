"""One task: read its pieces, tokenize, write shards, upload, and publish the receipt last."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from lmbatch.corpus import Document, Piece, Rejected, Seen, build_cleaner, read_piece, split_of
from lmbatch.errors import InputChangedError, ObjectNotFoundError, TaskError
from lmbatch.preprocess.plan import Plan, PlannedFile, Task
from lmbatch.shards import ShardWriter, WrittenShard
from lmbatch.store import (
    RECEIPTS_PREFIX,
    FileEntry,
    Ledger,
    PieceReceipt,
    Receipt,
    ShardEntry,
    Split,
    Store,
    to_json,
)
from lmbatch.tokens import Encoder, EngineDroppedError

_BATCH_BYTES = (
    1 << 20
)  # text handed to the tokenizer at once: large enough to amortise the call, small enough to bound it
_BATCH_DOCUMENTS = 512


def receipt_key(task_id: str) -> str:
    """Where the receipt of a task lies in the store."""
    return f"{RECEIPTS_PREFIX}{task_id}.json"


def run_task(store: Store, raw: Store, plan: Plan, task: Task, encoder: Encoder, spool: Path) -> Receipt | None:
    """Do one task, unless its receipt is there already (then None).

    Payload is uploaded first under names that carry its hash, the receipt is published last and once: of two
    attempts at one task one wins, and nothing refers to the other's bytes. Shards are built in ``spool``, a local
    folder, one per split at a time.

    Raises InputChangedError if an input is not the one that was planned, and any store, corpus or shard error.
    """
    if store.exists(receipt_key(task.id)):
        return None
    try:
        return _attempt(store, raw, plan, task, encoder, spool)
    except EngineDroppedError:  # what the first attempt uploaded is referred to by nothing
        return _attempt(store, raw, plan, task, encoder, spool)


def _attempt(store: Store, raw: Store, plan: Plan, task: Task, encoder: Encoder, spool: Path) -> Receipt:
    clock, cpu = time.monotonic(), time.process_time()
    for file in _files_of(plan, task):
        check_unchanged(raw, file)
    encoder.begin(task.id)
    spool.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{task.id}-", dir=spool) as folder:
        work = _Work(store, raw, plan, task, encoder, Path(folder))
        work.run()
        for file in _files_of(plan, task):
            check_unchanged(raw, file)
        receipt = Receipt(
            task=task.id,
            plan=plan.fingerprint,
            attempt=uuid.uuid4().hex,
            engine=encoder.engine,
            pieces=tuple(work.seen),
            shards=tuple(sorted(work.shards, key=lambda shard: shard.split)),
            quarantine=work.store_quarantine(),
            ledger=work.ledger(),
            seconds=time.monotonic() - clock,
            cpu_seconds=time.process_time() - cpu,
            peak_memory_bytes=_peak_memory(),
            input_bytes=sum(piece.bytes for piece in task.pieces),
        )
    store.publish(receipt_key(task.id), to_json(receipt))
    return receipt


def check_unchanged(raw: Store, file: PlannedFile) -> None:
    """Raises InputChangedError if a file's size, e-tag or modification time is not the planned one."""
    try:
        now = raw.info(file.path)
    except ObjectNotFoundError as error:
        raise InputChangedError(
            f"{raw.uri}/{file.path}: was there when the plan was made, and is gone",
            remedy="put it back, or plan anew into another store",
        ) from error
    before = (file.size, file.etag, file.modified)
    if (now.size, now.etag, now.modified) != before:
        raise InputChangedError(
            f"{raw.uri}/{file.path}: has changed since the plan was made "
            f"(size {file.size} → {now.size}, modified {file.modified} → {now.modified})",
            remedy="put the old file back, or plan anew into another store",
        )


def _peak_memory() -> int:
    """Most memory this process has held, in bytes (0 where /proc does not tell).

    getrusage would not do: a child's ru_maxrss begins at its parent's peak.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _files_of(plan: Plan, task: Task) -> Iterator[PlannedFile]:
    for number in sorted({piece.file for piece in task.pieces}):
        yield plan.files[number]


@dataclass
class _Counts:
    """The ledger of a task while it is being written."""

    documents: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def add(into: dict[str, int], key: str) -> None:
        into[key] = into.get(key, 0) + 1


@dataclass(slots=True)
class _Pending:
    """A document on its way to the tokenizer."""

    document: Document
    piece: int
    split: Split
    size: int


class _Work:
    """The streaming part of a task; everything it holds is bounded by a batch and the open shards' buffers."""

    def __init__(self, store: Store, raw: Store, plan: Plan, task: Task, encoder: Encoder, folder: Path) -> None:
        self._store, self._raw, self._plan, self._task = store, raw, plan, task
        self._encoder, self._folder = encoder, folder
        self._counts = _Counts()
        self._writers: dict[Split, ShardWriter] = {}
        self._parts: dict[Split, int] = {}
        self._quarantine = folder / "quarantine.jsonl"
        self._clean = build_cleaner(plan.config.cleaning)
        self.seen: list[PieceReceipt] = []
        self.shards: list[ShardEntry] = []

    def run(self) -> None:
        """Read every piece of the task into shards, and upload them."""
        batch: list[_Pending] = []
        size = 0
        with ExitStack() as cleanup:
            cleanup.callback(self._abort)
            for pending in self._documents():
                batch.append(pending)
                size += pending.size
                if size >= _BATCH_BYTES or len(batch) >= _BATCH_DOCUMENTS:
                    self._write(batch)
                    batch, size = [], 0
            self._write(batch)
            for split in tuple(self._writers):
                self._finish(split)

    def ledger(self) -> Ledger:
        """What became of every record. Raises TaskError if one is unaccounted for."""
        counts = self._counts
        ledger = Ledger(
            records=sum(piece.records for piece in self.seen),
            documents=dict(sorted(counts.documents.items())),
            dropped=dict(sorted(counts.dropped.items())),
            quarantined=dict(sorted(counts.quarantined.items())),
            changed=dict(sorted(counts.changed.items())),
        )
        if ledger.missing:
            raise TaskError(
                f"{self._task.id}: {ledger.records} records were read, {ledger.records - ledger.missing} are accounted "
                "for",
                remedy="this is a fault in lmbatch: please report it with the input file",
            )
        return ledger

    def store_quarantine(self) -> FileEntry | None:
        """Upload the list of quarantined records, if there are any."""
        if not self._quarantine.exists():
            return None
        data = self._quarantine.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        entry = FileEntry(key=f"quarantine/{self._task.id}-{digest[:12]}.jsonl", size=len(data), sha256=digest)
        self._store.put(entry.key, data)
        return entry

    def _documents(self) -> Iterator[_Pending]:
        for number, planned in enumerate(self._task.pieces):
            file = self._plan.files[planned.file]
            piece = Piece(path=file.path, start=planned.start, end=planned.end)
            seen = Seen()
            for record in read_piece(self._raw, self._plan.config.corpus, piece, file.probe, seen):
                kept = self._clean(record) if isinstance(record, Document) else record
                if isinstance(kept, Document):
                    split = split_of(kept, self._plan.config.split)
                    yield _Pending(kept, number, split, len(kept.text.encode()))
                else:
                    self._reject(kept)
            self.seen.append(
                PieceReceipt(
                    path=file.path,
                    start=planned.start,
                    end=planned.end,
                    first_position=seen.first_position,
                    end_position=seen.end_position,
                    records=seen.records,
                )
            )

    def _reject(self, record: Rejected) -> None:
        if record.dropped:
            self._counts.add(self._counts.dropped, record.reason)
            return
        self._counts.add(self._counts.quarantined, record.reason)
        row = {key: value for key, value in asdict(record).items() if key != "dropped"}
        with self._quarantine.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _write(self, batch: list[_Pending]) -> None:
        encoded = self._encoder.encode([pending.document.text for pending in batch])
        for pending, ids in zip(batch, encoded, strict=True):
            writer = self._writer(pending.split)
            if writer.documents and writer.bytes >= self._plan.config.shards.max_bytes:
                self._finish(pending.split)
                writer = self._writer(pending.split)
            writer.append(
                ids,
                piece=pending.piece,
                position=pending.document.position,
                id=pending.document.id,
                text_bytes=pending.size,
            )
            self._counts.add(self._counts.documents, pending.split)
            for rule in pending.document.changed:
                self._counts.add(self._counts.changed, rule)

    def _writer(self, split: Split) -> ShardWriter:
        if split not in self._writers:
            part = self._parts.get(split, 0)
            self._writers[split] = ShardWriter(self._folder, f"{split}-{part:02d}", self._plan.dtype)
        return self._writers[split]

    def _finish(self, split: Split) -> None:
        """Close a shard and upload it at once, so that the spool holds one shard per split at most."""
        written = self._writers.pop(split).close()
        part = self._parts.get(split, 0)
        self._parts[split] = part + 1
        stem = f"shards/{split}/{self._task.id}-{part:02d}-{written.bin_sha256[:12]}"
        self.shards.append(_upload(self._store, stem, split, written))

    def _abort(self) -> None:
        for writer in self._writers.values():
            writer.abort()


def _upload(store: Store, stem: str, split: Split, written: WrittenShard) -> ShardEntry:
    entry = written.entry(split, stem)
    for file, path in ((entry.bin, written.bin), (entry.idx, written.idx), (entry.docs, written.docs)):
        store.put_file(file.key, path)
        path.unlink()
    return entry
