"""Files of one JSON object a line that survive kill -9: append, read, cut."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmbatch.checkpoint.files import disk_errors
from lmbatch.errors import CheckpointError

Record = dict[str, Any]


def encode(record: Record) -> bytes:
    """One line. Floats are written so that they read back to the same bits."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_records(path: Path) -> list[Record]:
    """Every whole record; [] without a file. A last line without its line end was torn by a kill and is left out.

    Raises CheckpointError naming the line for anything else that is no JSON object.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    return [_parse(line, path, number) for number, line in enumerate(lines, start=1)]


def _parse(line: bytes, path: Path, number: int) -> Record:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise CheckpointError(f"{path}, line {number}: not a JSON object", remedy="remove or repair that line")
    return record


def cut_records(path: Path, keep: Callable[[Record], bool]) -> int:
    """Leave only the records that ``keep`` accepts, atomically; the number of records cut off."""
    records = read_records(path)
    kept = [record for record in records if keep(record)]
    if path.exists():
        replace_file(path, b"".join(encode(record) for record in kept))
    return len(records) - len(kept)


def replace_file(path: Path, data: bytes) -> None:
    """Write ``data`` under ``path``: a reader, or a kill, sees the old bytes or the new ones."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path, "writing"):
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


class RecordLog:
    """Appends records, each in one write; a torn last line of an earlier process is removed first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        self._file.seek(0)
        whole = self._file.read().rfind(b"\n") + 1
        self._file.truncate(whole)

    def append(self, record: Record) -> None:
        """Hand one record to the operating system."""
        with disk_errors(self._path, "appending a record"):
            self._file.write(encode(record))

    def sync(self) -> None:
        """Force everything appended so far to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        self._file.close()
