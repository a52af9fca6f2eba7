"""From a piece of an input file to its records, whatever the format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

from lmbatch.config import CorpusConfig
from lmbatch.config.preprocess import Format
from lmbatch.corpus import columns, csv_rows, json_array, lines, whole_files
from lmbatch.corpus.document import Record
from lmbatch.corpus.metered import metered
from lmbatch.corpus.source import Seen, Source
from lmbatch.corpus.splitting import FileProbe, Piece
from lmbatch.corpus.stream import compression_of
from lmbatch.store import Store

_READERS: dict[Format, Callable[[Source], Iterator[Record]]] = {
    "json_array": json_array.read,
    "json_lines": lines.read_json,
    "csv": csv_rows.read,
    "txt_lines": lines.read_text,
    "txt_files": whole_files.read,
    "parquet": columns.read_parquet,
    "dataset": columns.read_dataset,
}


def read_piece(
    store: Store, config: CorpusConfig, piece: Piece, probe: FileProbe, seen: Seen, *, most: int | None = None
) -> Iterator[Record]:
    """Every record of a piece, in order: documents, and what could not become one with the reason.

    ``most``: no more than these, the first ones; what is left of ``max_records`` where the corpus has such a limit.

    Memory is bounded by about three times ``max_record_bytes`` and a few chunks. ``seen`` is complete when the
    iterator is exhausted. Raises StoreError if the file cannot be read.
    """
    if config.format == "dataset" or compression_of(piece.path) != "none":  # positions are none of the stored file
        store = metered(store, seen)
    source = Source(store, config, piece, probe, seen)
    records = _records(source)
    for record in islice(records, config.first_records if most is None else most):
        seen.records += 1
        seen.position = record.position
        yield record
    if seen.records == most:
        end = seen.end_position
        seen.more = next(records, None) is not None
        seen.end_position = end


def _records(source: Source) -> Iterator[Record]:
    if not source.probe.empty:
        return _READERS[source.config.format](source)
    source.seen.end_position = size = source.probe.size
    refusal = source.make.rejected(0, size, "empty_file", "there is nothing but white space in the file")
    # Where a file is a document, an empty one is a record without text.
    drop = source.config.format == "txt_files" and source.config.missing_text == "drop"
    return iter([replace(refusal, dropped=drop)])
