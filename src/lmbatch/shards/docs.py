"""``docs.parquet``: where each document of a shard came from; row i is document i, or where examples hold several
documents (best_fit) the i-th part of one in the order of the tokens.

====================  =======  ==========================================================
``piece``             int32    index into the pieces of the task's receipt
``position``          int64    byte offset of the record in its file
``id``                string   the corpus's own identifier, or null
``tokens``            int32    tokens of the document, EOD included
====================  =======  ==========================================================
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lmbatch.errors import ShardError
from lmbatch.shards.files import HashingFile

SCHEMA = pa.schema(
    [
        pa.field("piece", pa.int32(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("tokens", pa.int32(), nullable=False),
    ]
)
ROWS_PER_GROUP = 65_536  # bounds the writer's memory, and what must be read for one row


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """One row of docs.parquet, with its number."""

    document: int
    piece: int
    position: int
    id: str | None
    tokens: int


class DocsWriter:
    """Writes rows in groups of ROWS_PER_GROUP into ``sink``, which stays open."""

    def __init__(self, sink: HashingFile) -> None:
        self._writer = pq.ParquetWriter(sink, SCHEMA, compression="zstd")
        self._clear()

    def append(self, *, piece: int, position: int, id: str | None, tokens: int) -> None:  # noqa: A002
        """Adds the next document."""
        self._pieces.append(piece)
        self._positions.append(position)
        self._ids.append(id)
        self._tokens.append(tokens)
        if len(self._tokens) == ROWS_PER_GROUP:
            self._flush()

    def extend(
        self, pieces: Sequence[int], positions: Sequence[int], ids: Sequence[str | None], tokens: Sequence[int]
    ) -> None:
        """Adds the next documents, a column each."""
        first = 0
        while first < len(pieces):
            end = first + ROWS_PER_GROUP - len(self._tokens)
            self._pieces.extend(pieces[first:end])
            self._positions.extend(positions[first:end])
            self._ids.extend(ids[first:end])
            self._tokens.extend(tokens[first:end])
            first = end
            if len(self._tokens) == ROWS_PER_GROUP:
                self._flush()

    def close(self) -> None:
        """Writes what is left and the file's footer."""
        self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """Lets go of a discarded sink; left to the garbage collector, the Parquet writer would complain aloud."""
        with contextlib.suppress(Exception):
            self._writer.close()

    def _flush(self) -> None:
        if not self._tokens:
            return
        # Made from buffers, because pa.array imports pandas wherever it is installed, which costs 0.2 s and 40 MB.
        columns = [
            _numbers(pa.int32(), self._pieces),
            _numbers(pa.int64(), self._positions),
            _strings(self._ids),
            _numbers(pa.int32(), self._tokens),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), row_group_size=ROWS_PER_GROUP)
        self._clear()

    def _clear(self) -> None:
        self._pieces, self._positions, self._tokens = array("i"), array("q"), array("i")
        self._ids: list[str | None] = []


def _numbers(kind: Any, values: array[int]) -> Any:
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def _strings(values: Sequence[str | None]) -> Any:
    # A lone surrogate is legal in JSON and impossible in UTF-8: keep the identifier readable all the same.
    encoded = [b"" if value is None else value.encode("utf-8", "backslashreplace") for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    there = np.packbits([value is not None for value in values], bitorder="little")
    buffers = [pa.py_buffer(there), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def token_counts(stream: BinaryIO, where: str) -> Iterator[npt.NDArray[np.int32]]:
    """The ``tokens`` column, one array for each row group. Raises ShardError for a file that is no docs.parquet."""
    file = _open(stream, where)
    for group in range(file.num_row_groups):
        yield _group(file, group, where, ["tokens"]).column("tokens").to_numpy()


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Three columns of all rows; ``piece`` and ``position`` name a row's document."""

    piece: npt.NDArray[np.int32]
    position: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int32]

    @property
    def documents(self) -> int:
        """How many records there are."""
        order = np.lexsort((self.position, self.piece))
        piece, position = self.piece[order], self.position[order]
        return int(((np.diff(piece) != 0) | (np.diff(position) != 0)).sum()) + bool(len(order))


def all_rows(stream: BinaryIO, where: str) -> Rows:
    """The numbers of all rows, 16 bytes each. Raises ShardError for a file that is no docs.parquet."""
    file = _open(stream, where)
    names = ["piece", "position", "tokens"]
    groups = [_group(file, group, where, names) for group in range(file.num_row_groups)]
    table = pa.concat_tables(groups) if groups else SCHEMA.empty_table()
    return Rows(*(table.column(name).to_numpy() for name in names))


def read_rows(stream: BinaryIO, documents: Sequence[int], where: str) -> list[DocumentRow]:
    """The rows of these documents, in ascending order; only the row groups that hold one are read.

    Raises ShardError for a file that is no docs.parquet, or that has no such row.
    """
    file = _open(stream, where)
    wanted = sorted(set(documents))
    if wanted and not 0 <= wanted[0] <= wanted[-1] < file.metadata.num_rows:
        raise ShardError(
            f"{where}: asked for documents {wanted[0]} to {wanted[-1]}, but it has {file.metadata.num_rows} rows",
            remedy="run `lmbatch verify` on the store",
        )
    rows: list[DocumentRow] = []
    first = 0
    for group in range(file.num_row_groups):
        end = first + file.metadata.row_group(group).num_rows
        here = [number for number in wanted if first <= number < end]
        if here:
            table = _group(file, group, where, None).take(pa.array([number - first for number in here]))
            rows += [DocumentRow(number, **row) for number, row in zip(here, table.to_pylist(), strict=True)]
        first = end
    return rows


def read_table(stream: BinaryIO, first: int, end: int, where: str) -> Any:
    """Documents ``first`` up to but without ``end`` as an Arrow table; only the row groups that hold one are read.

    Raises ShardError for a file that is no docs.parquet, or that has no such rows.
    """
    file = _open(stream, where)
    found, begin = [], 0
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        low, high = max(first - begin, 0), min(end - begin, size)
        if low < high:
            found.append(_group(file, group, where, None).slice(low, high - low))
        begin += size
    table = pa.concat_tables(found) if found else SCHEMA.empty_table()
    if table.num_rows != end - first:
        raise ShardError(
            f"{where}: asked for documents {first} to {end - 1}, but it has {begin} rows",
            remedy="run `lmbatch verify` on the store",
        )
    return table


def _open(stream: BinaryIO, where: str) -> Any:
    try:
        file = pq.ParquetFile(stream)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(where, str(error)) from error
    if not file.schema_arrow.equals(SCHEMA):
        raise _damaged(where, f"its columns are {', '.join(file.schema_arrow.names)}")
    return file


def _group(file: Any, group: int, where: str, columns: list[str] | None) -> Any:
    try:
        return file.read_row_group(group, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(where, f"row group {group}: {error}") from error


def _damaged(where: str, what: str) -> ShardError:
    return ShardError(
        f"{where}: not the documents of a shard: {what}",
        remedy="the file is damaged or of another kind: run `lmbatch verify` on the store",
    )
