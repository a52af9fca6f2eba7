"""A run's records in the mirror, so that a node which lost its disk goes on with the same curve and ledger.

::

    metrics.jsonl, attempts.jsonl, … ──push──▶ records/<sha256>.gz           pieces of 4 MiB, each stored once
                                               checkpoints/step-N/records.json   which pieces make up which file
    an empty run folder ◀──pull── the newest checkpoint's records.json whose pieces are all right

Logs only grow: a checkpoint adds what was appended since the one before, and a month of them costs the mirror little
more than the log itself. Rows of later steps that are in them already do no harm: a resume cuts them off.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator

from lmbatch.checkpoint.inventory import Inventory
from lmbatch.checkpoint.layout import step_folder
from lmbatch.checkpoint.receipt import CheckpointReceipt
from lmbatch.config.base import Section
from lmbatch.errors import CheckpointError, ObjectNotFoundError
from lmbatch.store import Store
from lmbatch.store.files import replacing, store_errors

log = logging.getLogger(__name__)

PREFIX = "records/"
LEDGER = "attempts.jsonl"
METRICS = "metrics.jsonl"
# In the order in which they come back: a folder that has the ledger has them all.
FILES = (METRICS, "samples.jsonl", "tracking/id", "tracking/sent.json", "config.yaml", "manifest.json", "model.json")
FOLDER = "tokenizer/"
PIECE_BYTES = 4 * 2**20
_NAME = r"^[0-9a-f]{64}$"


class RecordFile(Section):
    """One file: its bytes are those of its ``pieces``, which are named by their SHA-256, end to end."""

    path: str
    size: int = Field(ge=0)
    pieces: tuple[Annotated[str, Field(pattern=_NAME)], ...]

    @field_validator("path")
    @classmethod
    def _is_a_record(cls, path: str) -> str:
        # It decides where a download is written to.
        if path in (*FILES, LEDGER) or (path.startswith(FOLDER) and ".." not in path.split("/")):
            return path
        raise ValueError(f"{path!r} is no record of a run")


class RecordIndex(Section):
    """``records.json``: the records as they were when a checkpoint was copied."""

    format_version: int = Field(1, ge=1, le=1)
    files: tuple[RecordFile, ...]


@dataclass(frozen=True, slots=True)
class Pulled:
    """Where records came from: the checkpoint's step, and the files that were written."""

    step: int
    paths: tuple[str, ...]


def index_key(step: int) -> str:
    """Key of the list of a checkpoint's records."""
    return f"{step_folder(step)}/records.json"


def push(store: Store, root: Path, step: int) -> None:
    """Copy the records of the run folder ``root`` beside the checkpoint of ``step``: pieces first, then their list.

    A file that is being appended to goes up to its last whole line. Raises StoreError, OSError.
    """
    there = {info.key for info in store.list(PREFIX)}
    files = tuple(_push_file(store, root, path, there) for path in _paths(root))
    if files:
        store.put(index_key(step), RecordIndex(files=files).model_dump_json(indent=1).encode() + b"\n")


def pull(store: Store, root: Path) -> Pulled | None:
    """Bring the newest records back into ``root``, the ledger last; a file that is there stays as it is.

    None if the store has no records. What is damaged is passed over with a warning. Raises StoreError if the store
    or the disk fails.
    """
    for step, index in _indexes(store, Inventory.of(store)):
        try:
            written = [file.path for file in _ledger_last(index) if _pull_file(store, root, file)]
        except (CheckpointError, ObjectNotFoundError) as error:
            log.warning("the records beside step %d are passed over: %s", step, error.message)
            continue
        return Pulled(step, tuple(written))
    return None


def read_record(store: Store, path: str, inventory: Inventory | None = None) -> bytes | None:
    """One record as the newest checkpoint has it; None if there is none. Raises StoreError, CheckpointError."""
    for _, index in _indexes(store, inventory or Inventory.of(store)):
        for file in index.files:
            if file.path == path:
                return b"".join(_pieces(store, file))
    return None


def sweep(store: Store) -> None:
    """Delete the pieces that no checkpoint's list names any more. Only for the one who pushes. Raises StoreError."""
    keys = [info.key for info in store.list("checkpoints/") if info.key.endswith("/records.json")]
    indexes = [_parse(data, key) for key, data in zip(keys, store.read_many(keys), strict=True) if data is not None]
    if any(index is None for index in indexes):
        return  # nobody can tell what it needs
    named = {_piece_key(name) for index in indexes if index is not None for file in index.files for name in file.pieces}
    for info in list(store.list(PREFIX)):
        if info.key not in named:
            store.delete(info.key)


def _paths(root: Path) -> list[str]:
    more = sorted(path.relative_to(root).as_posix() for path in (root / FOLDER).rglob("*") if path.is_file())
    return [path for path in (*FILES, LEDGER, *more) if (root / path).is_file()]


def _push_file(store: Store, root: Path, path: str, there: set[str]) -> RecordFile:
    names, size = [], 0
    for piece in _read_pieces(root / path, whole_lines=path.endswith(".jsonl")):
        name = hashlib.sha256(piece).hexdigest()
        if _piece_key(name) not in there:
            # Numbers hardly get smaller by trying harder, and training shares the processor.
            store.put(_piece_key(name), gzip.compress(piece, compresslevel=1, mtime=0))
            there.add(_piece_key(name))
        names.append(name)
        size += len(piece)
    return RecordFile(path=path, size=size, pieces=tuple(names))


def _read_pieces(path: Path, *, whole_lines: bool) -> Iterator[bytes]:
    """Cut at fixed places, so that what was there before keeps its names."""
    with path.open("rb") as file:
        while len(piece := file.read(PIECE_BYTES)) == PIECE_BYTES:
            yield piece
        if whole_lines:
            piece = piece[: piece.rfind(b"\n") + 1]
        if piece:
            yield piece


def _indexes(store: Store, found: Inventory) -> Iterator[tuple[int, RecordIndex]]:
    """The lists of records beside committed checkpoints, newest first."""
    for step in sorted(found.receipts, reverse=True):
        if index_key(step) in found.sizes and isinstance(found.receipts[step], CheckpointReceipt):
            index = _parse(store.read(index_key(step)), store.where(index_key(step)))
            if index is not None:
                yield step, index


def _parse(data: bytes, where: str) -> RecordIndex | None:
    try:
        return RecordIndex.model_validate_json(data)
    except ValidationError as error:
        log.warning("%s: is no list of records: %s", where, error.errors(include_url=False)[0]["msg"])
        return None


def _ledger_last(index: RecordIndex) -> Iterable[RecordFile]:
    return sorted(index.files, key=lambda file: file.path == LEDGER)


def _pull_file(store: Store, root: Path, file: RecordFile) -> bool:
    target = root / file.path
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with store_errors("write", str(target)), replacing(target) as out:
        for piece in _pieces(store, file):
            out.write(piece)
    return True


def _pieces(store: Store, file: RecordFile) -> Iterator[bytes]:
    for name in file.pieces:
        data = _inflated(store.read(_piece_key(name)))
        if data is None or hashlib.sha256(data).hexdigest() != name:
            raise CheckpointError(f"{store.where(_piece_key(name))}: a piece of {file.path} was changed")
        yield data


def _inflated(data: bytes) -> bytes | None:
    """Never more than a piece has: a damaged or malicious one could be of any size."""
    try:
        return zlib.decompressobj(wbits=31).decompress(data, PIECE_BYTES + 1)
    except zlib.error:
        return None


def _piece_key(name: str) -> str:
    return f"{PREFIX}{name}.gz"
