"""Reading tables of columns: Parquet files, and the Arrow streams of a ``datasets`` folder.

Positions are row numbers. Texts are taken as bytes and decoded one by one, so that bad UTF-8 costs one row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from lmbatch.config import CorpusConfig
from lmbatch.corpus.document import Record
from lmbatch.corpus.fields import RecordMaker
from lmbatch.corpus.inputs import InputFile
from lmbatch.corpus.source import Source
from lmbatch.corpus.splitting import FileProbe
from lmbatch.errors import CorpusError
from lmbatch.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 256


def probe_parquet(store: Store, config: CorpusConfig, file: InputFile, why_not: str) -> FileProbe:
    """From the footer. Raises CorpusError for a file that is not Parquet or lacks a text column."""
    import pyarrow as pa
    from pyarrow import parquet

    where = store.where(file.path)
    try:
        with store.open(file.path) as raw:
            table = parquet.ParquetFile(raw)
            groups = [table.metadata.row_group(number) for number in range(table.metadata.num_row_groups)]
            schema = table.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(where, "Parquet", error) from error
    _check_columns(schema, config, where)
    why_not = why_not or ("" if len(groups) > 1 else "it has one row group")
    return FileProbe(
        size=file.size,
        splittable=not why_not,
        why_not=why_not,
        row_group_bytes=tuple(group.total_byte_size for group in groups),
        row_group_rows=tuple(group.num_rows for group in groups),
    )


def probe_dataset(store: Store, config: CorpusConfig, file: InputFile, why_not: str) -> FileProbe:
    """From the stream's schema. Raises CorpusError for a file that is no Arrow stream or lacks a text column."""
    import pyarrow as pa

    where = store.where(file.path)
    try:
        with store.open(file.path) as raw, pa.ipc.open_stream(raw) as stream:
            schema = stream.schema
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(where, "an Arrow stream", error) from error
    _check_columns(schema, config, where)
    return FileProbe(size=file.size, splittable=False, why_not=why_not)


def read_parquet(source: Source) -> Iterator[Record]:
    """The records of a range of row groups. Unreadable rows are rejected one by one, so that all are counted."""
    import pyarrow as pa
    from pyarrow import parquet

    seen, rows = source.seen, source.probe.row_group_rows
    seen.first_position = seen.end_position = sum(rows[: source.piece.start])
    with source.store.open(source.piece.path) as raw:
        table = parquet.ParquetFile(raw)
        names = _columns(source.config, table.schema_arrow)
        for group in range(source.piece.start, source.piece.end):
            end = sum(rows[: group + 1])
            try:
                for batch in table.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=names):
                    yield from _records(batch, source)
            except (pa.ArrowException, OSError) as error:
                yield from _lost_rows(source, end, f"row group {group}: {error}")
            seen.end_position = end


def read_dataset(source: Source) -> Iterator[Record]:
    """The records of one Arrow stream. Where it breaks off, one Rejected tells the row."""
    import pyarrow as pa

    with ExitStack() as stack:
        raw = stack.enter_context(source.store.open(source.piece.path))
        stream = stack.enter_context(pa.ipc.open_stream(raw))
        names = _columns(source.config, stream.schema)
        while True:
            try:
                batch = stream.read_next_batch()
            except StopIteration:
                return
            except (pa.ArrowException, OSError) as error:
                yield source.make.rejected(source.seen.end_position, 0, "damaged_file", str(error))
                return
            yield from _records(batch.select(names), source)


def _records(batch: pa.RecordBatch, source: Source) -> Iterator[Record]:
    """The records of a batch; ``seen.end_position`` goes along row by row."""
    make, seen = source.make, source.seen
    names = batch.schema.names
    columns = [_values(batch.column(name)) for name in names]
    for values in zip(*columns, strict=True):
        position = seen.end_position
        seen.end_position += 1
        yield _record(dict(zip(names, values, strict=True)), position, source.config, make)


def _record(row: dict[str, Any], position: int, config: CorpusConfig, make: RecordMaker) -> Record:
    texts = [row[name] for name in config.text_fields if row[name] is not None]
    length = sum(map(len, texts))
    beginning = texts[0] if texts else b""
    if length > config.max_record_bytes:
        return make.too_large(position, length, beginning)
    for name, value in row.items():
        if isinstance(value, bytes):
            try:
                row[name] = value.decode()
            except UnicodeDecodeError as error:
                place = f"row {position}, column {name!r}, byte {error.start}"
                return make.invalid_utf8(position, error, value, place)
    return make.from_fields(row, position, length, beginning)


def _lost_rows(source: Source, end: int, detail: str) -> Iterator[Record]:
    make = source.make
    for position in range(source.seen.end_position, end):
        yield make.rejected(position, 0, "damaged_rows", f"row {position}: {detail}")


def _values(column: pa.Array) -> list[Any]:
    """Python values, strings as bytes. Arrow itself would give up a whole batch for one bad byte."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values: list[Any] = (column.cast(pa.large_binary()) if _is_text(column.type) else column).to_pylist()
    return values


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in tests)


def _columns(config: CorpusConfig, schema: pa.Schema) -> list[str]:
    """The columns that are needed, each once. Only the text columns must be there."""
    wanted = (*config.text_fields, config.id_field, *config.metadata_fields)
    return [name for name in dict.fromkeys(wanted) if name is not None and name in schema.names]


def _check_columns(schema: pa.Schema, config: CorpusConfig, where: str) -> None:
    for name in config.text_fields:
        there = ", ".join(f"{field.name} ({field.type})" for field in schema)
        if schema.names.count(name) != 1 or not _is_text(schema.field(name).type):
            raise CorpusError(
                f"{where}: there is not one column of text named {name!r}; the columns are: {there}",
                remedy="set corpus.text_fields to the column that holds the text",
            )


def _unreadable(where: str, what: str, error: Exception) -> CorpusError:
    return CorpusError(
        f"{where}: it cannot be read as {what}: {error}",
        remedy="get the file again, or leave it out with corpus.exclude",
    )
