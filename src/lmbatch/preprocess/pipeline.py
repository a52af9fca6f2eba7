"""The streaming part of a task: read, clean, tokenize, write, upload."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lmbatch.corpus import Document, Rejected, build_cleaner, split_of
from lmbatch.errors import TaskError
from lmbatch.preprocess.batches import Pending, rows_of, runs, that_fit
from lmbatch.preprocess.chunking import Chunker
from lmbatch.preprocess.live import LiveTask
from lmbatch.preprocess.packer import Packer
from lmbatch.preprocess.plan import Plan, Task
from lmbatch.preprocess.profile import Profiler
from lmbatch.preprocess.reading import read_cleaned
from lmbatch.shards import DocumentBatch, PackedBatch, ShardWriter, WrittenShard
from lmbatch.store import FileEntry, Ledger, PieceReceipt, ShardEntry, Split, Store, TokenLedger
from lmbatch.tokens import Encoder

if TYPE_CHECKING:
    from lmbatch.preprocess.dedup import Sieve

# Text handed to the tokenizer at once: enough to amortise the call, little enough to bound memory.
_BATCH_CHARACTERS = 1 << 19
_BATCH_DOCUMENTS = 512
_EXCERPT_CHARACTERS = 300


@dataclass
class _Counts:
    """The ledger of a task while it is being written."""

    documents: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def add(into: dict[str, int], key: str, count: int = 1) -> None:
        into[key] = into.get(key, 0) + count


class Pipeline:
    """The streaming part of a task; everything it holds is bounded by a batch and the open shards' buffers."""

    def __init__(
        self, store: Store, raw: Store, plan: Plan, task: Task, encoder: Encoder, folder: Path, live: LiveTask,
        sieve: Sieve | None = None,
    ) -> None:  # fmt: skip
        self._store, self._raw, self._plan, self._task = store, raw, plan, task
        self._folder = folder
        self._chunker = Chunker(plan.config.chunking, encoder, plan.tokenizer.eod_id)
        chunking = plan.config.chunking
        self._packing = chunking if chunking is not None and chunking.packs else None
        self._sieve = sieve
        self._counts = _Counts()
        self._live = live
        live.counts(self._counts)
        self._writers: dict[Split, ShardWriter] = {}
        self._parts: dict[Split, int] = {}
        self._packers: dict[Split, Packer] = {}
        self._quarantine = folder / "quarantine.jsonl"
        self._clean = build_cleaner(plan.config.cleaning)
        self._profile = Profiler(plan.config, task.id, [plan.files[piece.file].path for piece in task.pieces])
        self.seen: list[PieceReceipt] = []
        self.shards: list[ShardEntry] = []

    def run(self) -> None:
        """Read every piece of the task into shards, and upload them."""
        batch: list[Pending] = []
        size = 0
        with ExitStack() as cleanup:
            cleanup.callback(self._abort)
            for pending in self._documents():
                batch.append(pending)
                size += len(pending.document.text)
                if size >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
                    self._write(batch)
                    batch, size = [], 0
            self._write(batch)
            for split, packer in self._packers.items():
                self._fill_packed(split, packer.finish())
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
            tokens=self._token_ledger(),
            unread=dict(sorted(Counter(piece.unread for piece in self.seen if piece.unread).items())),
        )
        problem = token_problem(ledger, self.shards)
        if problem is not None:
            raise TaskError(f"{self._task.id}: {problem}", remedy="this is a fault in lmbatch: please report it")
        if ledger.missing:
            raise TaskError(
                f"{self._task.id}: {ledger.records} records were read, {ledger.records - ledger.missing} are accounted "
                "for",
                remedy="this is a fault in lmbatch: please report it with the input file",
            )
        return ledger

    def _token_ledger(self) -> TokenLedger | None:
        ledger = self._chunker.ledger()
        if ledger is None or not self._packers:
            return ledger
        return ledger.model_copy(update={"padding": sum(packer.padding for packer in self._packers.values())})

    def store_quarantine(self) -> FileEntry | None:
        """Upload the list of quarantined records, if there are any."""
        if not self._quarantine.exists():
            return None
        return self._store_beside("quarantine", "jsonl", self._quarantine.read_bytes())

    def store_profile(self) -> FileEntry:
        """Upload what the report will need of this task."""
        return self._store_beside("profiles", "json", self._profile.finish().model_dump_json().encode() + b"\n")

    def _store_beside(self, folder: str, kind: str, data: bytes) -> FileEntry:
        digest = hashlib.sha256(data).hexdigest()
        entry = FileEntry(key=f"{folder}/{self._task.id}-{digest[:12]}.{kind}", size=len(data), sha256=digest)
        self._store.put(entry.key, data)
        return entry

    def _documents(self) -> Iterator[Pending]:
        for piece, record, cleaned in read_cleaned(
            self._raw, self._plan, self._task, self._clean, self.seen, self._live
        ):
            kept = self._sieve.sift(piece, cleaned) if self._sieve and isinstance(cleaned, Document) else cleaned
            if isinstance(kept, Rejected):
                self._profile.rejected(record, kept)
                self._reject(kept)
            elif isinstance(record, Document):
                split = split_of(kept, self._plan.config.split)
                before = self._profile.before(record, kept) if kept.changed else None
                yield Pending(kept, piece, split, before)
        if self._sieve:
            self._sieve.finish()

    def _reject(self, record: Rejected) -> None:
        if record.dropped:
            self._counts.add(self._counts.dropped, record.reason)
            return
        self._counts.add(self._counts.quarantined, record.reason)
        row = {key: value for key, value in asdict(record).items() if key != "dropped"}
        with self._quarantine.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _write(self, batch: list[Pending]) -> None:
        if not batch:
            return
        examples = self._chunker.examples([pending.document.text for pending in batch])
        rows = rows_of(batch, examples)
        fates = [pending.split if some else None for pending, some in zip(batch, rows.tokens.tolist(), strict=True)]
        for first, end in runs(fates):
            if fates[first]:
                self._extend(batch[first:end], rows.part(first, end))
            else:
                for number in range(first, end):
                    self._drop(batch[number].document, int(examples.encoded[number]))
        open_tokens = sum(writer.tokens for writer in self._writers.values())
        open_tokens += sum(packer.tokens for packer in self._packers.values())
        self._live.tokens = open_tokens + sum(shard.tokens for shard in self.shards)

    def _extend(self, run: list[Pending], rows: DocumentBatch) -> None:
        """Write documents of one split, into as many shards as they take."""
        split, documents = run[0].split, [pending.document for pending in run]
        if self._packing is not None:
            packer = self._packers.setdefault(split, Packer(self._packing))
            self._fill_packed(split, packer.add(rows))
        else:
            self._fill_all(split, rows)
        self._counts.add(self._counts.documents, split, len(rows))
        before = [pending.before for pending in run]
        self._profile.written(documents, split, tokens=rows.tokens, text_bytes=rows.text_bytes, before=before)
        for document in documents:
            for rule in document.changed:
                self._counts.add(self._counts.changed, rule)

    def _fill_all(self, split: Split, rows: DocumentBatch) -> None:
        first = 0
        while first < len(rows):
            first += self._fill(split, rows.part(first, len(rows)))

    def _fill_packed(self, split: Split, examples: Iterable[PackedBatch]) -> None:
        """Documents that were packed together stay in one shard, which may become so much larger than others."""
        for batch in examples:
            self._writer_with_room(split).extend_packed(batch)

    def _fill(self, split: Split, rows: DocumentBatch) -> int:
        """Write as many of the documents as the open shard takes, one at least; how many."""
        writer = self._writer_with_room(split)
        taken = that_fit(rows.tokens, self._plan.config.shards.max_bytes - writer.bytes, writer.itemsize)
        writer.extend(rows.part(0, taken))
        return taken

    def _writer_with_room(self, split: Split) -> ShardWriter:
        writer = self._writer(split)
        if writer.documents and writer.bytes >= self._plan.config.shards.max_bytes:
            self._finish(split)
            writer = self._writer(split)
        return writer

    def _drop(self, document: Document, tokens: int) -> None:
        """A document that gives no example is dropped by name, like one that a filter takes out."""
        detail = f"{tokens} tokens give no example"
        why = Rejected(
            document.path, document.position, len(document.text.encode()), self._chunker.nothing_left, detail,
            document.text[:_EXCERPT_CHARACTERS], dropped=True,
        )  # fmt: skip
        self._profile.rejected(document, why)
        self._reject(why)

    def _writer(self, split: Split) -> ShardWriter:
        if split not in self._writers:
            part = self._parts.get(split, 0)
            stem = f"{split}-{part:02d}"
            self._writers[split] = ShardWriter(self._folder, stem, self._plan.dtype, examples=self._chunker.cuts)
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


def token_problem(ledger: Ledger, shards: Iterable[ShardEntry]) -> str | None:
    """What contradicts that every encoded token was written or thrown away by name; None if nothing does."""
    tokens, written = ledger.tokens, sum(shard.tokens for shard in shards)
    if tokens is None or tokens.written == written:
        return None
    return (
        f"{tokens.encoded} tokens were encoded, {tokens.eod} EODs added and {tokens.lost} thrown away, but "
        f"{written} were written, not {tokens.written}"
    )


def _upload(store: Store, stem: str, split: Split, written: WrittenShard) -> ShardEntry:
    entry = written.entry(split, stem)
    for file, path in ((entry.bin, written.bin), (entry.idx, written.idx), (entry.docs, written.docs)):
        store.put_file(file.key, path)
        path.unlink()
    return entry
