"""What a sample was made of, document by document and token by token, without reading a token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lmbatch.loader.data import TokenData
from lmbatch.loader.origin import document_starts, task_of
from lmbatch.loader.stream import Span
from lmbatch.shards import read_rows
from lmbatch.shards.docs import DocumentRow
from lmbatch.store import RECEIPTS_PREFIX, parse_receipt


@dataclass(frozen=True, slots=True)
class DocumentPart:
    """A run of tokens of one document in a sample.

    In the sample they begin at token ``at``; in what the shard holds of the document they are tokens ``first`` up to
    but without ``end``, of ``tokens`` (its EOD included); in the shard they begin at token ``start``. ``path``,
    ``position`` and ``id`` are the document's file, the byte offset of its record in it, and its own name.
    """

    at: int
    first: int
    end: int
    tokens: int
    path: str
    position: int
    id: str | None
    shard: str
    start: int


@dataclass(frozen=True, slots=True)
class ShownSample:
    """``tokens`` are those of the sample without padding; ``sample`` is its global number."""

    sample: int
    tokens: int
    parts: tuple[DocumentPart, ...]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Tokens of one document, by its row in the shard's docs.parquet."""

    row: int
    at: int
    first: int
    end: int
    start: int


def show_samples(data: TokenData, samples: Sequence[int]) -> list[ShownSample]:
    """The documents of samples, in the order of their tokens.

    Reads the manifest, and of each shard that is touched its index, its documents' origins and its task's receipt.
    Raises ShardError or StoreError if one of them is missing or damaged.
    """
    spans = {sample: data.spans(sample) for sample in samples}
    shards = sorted({span.shard for found in spans.values() for span in found})
    starts = {shard: document_starts(data.store, data.manifest, data.entries[shard]) for shard in shards}
    pieces = {sample: [(span.shard, list(_cut(span, starts[span.shard], at))) for span, at in _placed(found)]
              for sample, found in spans.items()}  # fmt: skip
    wanted: dict[int, set[int]] = {shard: set() for shard in shards}
    for found in pieces.values():
        for shard, cuts in found:
            wanted[shard].update(piece.row for piece in cuts)
    origins = {shard: _Origins.of(data, shard, sorted(rows)) for shard, rows in wanted.items()}
    return [
        ShownSample(sample, sum(span.length for span in spans[sample]),
                    tuple(origins[shard].part(piece) for shard, cuts in pieces[sample] for piece in cuts))
        for sample in samples
    ]  # fmt: skip


def _placed(spans: Sequence[Span]) -> Iterator[tuple[Span, int]]:
    """Each span, and where in the sample it begins."""
    at = 0
    for span in spans:
        yield span, at
        at += span.length


def _cut(span: Span, starts: np.ndarray, at: int) -> Iterator[_Piece]:
    """A span at the borders of documents; of several that begin at one token, only the last has any."""
    place, end = span.start, span.start + span.length
    while place < end:
        row = int(np.searchsorted(starts, place, side="right")) - 1
        stop = min(end, int(starts[row + 1])) if row + 1 < len(starts) else end
        begin = int(starts[row])
        yield _Piece(row, at + place - span.start, place - begin, stop - begin, place)
        place = stop


@dataclass(frozen=True, slots=True)
class _Origins:
    """The rows of some documents of a shard, and the files that they came from."""

    shard: str
    paths: list[str]
    rows: dict[int, DocumentRow]

    @classmethod
    def of(cls, data: TokenData, shard: int, wanted: Sequence[int]) -> _Origins:
        entry, store = data.entries[shard], data.store
        key = f"{RECEIPTS_PREFIX}{task_of(entry.bin.key)}.json"
        paths = [piece.path for piece in parse_receipt(store.read(key), store.where(key)).pieces]
        with store.open(entry.docs.key) as stream:
            rows = read_rows(stream, wanted, store.where(entry.docs.key))
        return cls(entry.bin.key, paths, {row.document: row for row in rows})

    def part(self, piece: _Piece) -> DocumentPart:
        row = self.rows[piece.row]
        return DocumentPart(piece.at, piece.first, piece.end, row.tokens, self.paths[row.piece], row.position, row.id,
                            self.shard, piece.start)  # fmt: skip
