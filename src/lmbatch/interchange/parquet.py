"""Write a corpus as Parquet files with a column ``input_ids``, which ``datasets`` loads.

::

    OUT/SPLIT-00000-of-00012.parquet     rows [0, n) of the split; in its footer, what it was made from
    OUT/SPLIT-00001-of-00012.parquet     rows [n, 2n) …

Which rows a file has is a function of the manifest and the options, and a file appears whole or not at all. So an
interrupted export goes on where it stopped when it is called again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lmbatch.errors import UsageError
from lmbatch.interchange.origins import Origins
from lmbatch.interchange.rows import Rows, SampleRows, SequenceRows
from lmbatch.loader import ShardCache, TokenReader
from lmbatch.loader.locks import if_free
from lmbatch.store import Manifest, Split, Store
from lmbatch.store.files import TEMPORARY_PREFIX, make_folders, replacing, store_errors

_METADATA_KEY = b"lmbatch"
_LOCK = ".lmbatch-export.lock"
_FILE_TOKENS = 1 << 26  # about so many in a file, unless the caller says how many rows
_OURS = re.compile(r"^(?P<split>train|validation)-\d+-of-\d+\.parquet$")

Progress = Callable[[int, int], None]  # rows done, rows in all


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What rows are. ``sequence_length``: samples of so many tokens, instead of documents (or examples)."""

    sequence_length: int | None = None
    origins: bool = False
    rows_per_file: int | None = None


@dataclass(frozen=True, slots=True)
class ExportedSplit:
    """What was written of one split; ``files_written`` counts this call's, the others were there already."""

    split: Split
    rows: int
    files: tuple[str, ...]
    files_written: int


def export_parquet(
    store: Store,
    manifest: Manifest,
    split: Split,
    out: Path,
    cache: ShardCache,
    options: ExportOptions,
    progress: Progress = lambda done, total: None,
) -> ExportedSplit:
    """Write what is missing of a split's files to the folder ``out``; memory is a few batches of rows.

    Raises UsageError for options that do not fit the corpus and for a folder with files of another export, ShardError
    for a shard whose bytes are not the manifest's, and StoreError if reading or writing fails.
    """
    reader = TokenReader(cache, manifest.of(split), manifest.dtype, indexed=True, documents=options.origins)
    try:
        rows = _rows(store, manifest, split, cache, reader, options)
        size = options.rows_per_file or _rows_of_a_file(len(rows), manifest.tokens(split))
        export = _Export(rows, out, _facts(manifest, split, options), size)
        written = export.run(progress)
    finally:
        reader.close()
    return ExportedSplit(split, len(rows), tuple(export.names), written)


def _rows(
    store: Store, manifest: Manifest, split: Split, cache: ShardCache, reader: TokenReader, options: ExportOptions
) -> Rows:
    entries = manifest.of(split)
    packed = manifest.chunking is not None and manifest.chunking.packs
    if options.origins and packed:
        raise UsageError("an example of several documents (best_fit) has no one origin", remedy="leave out --origins")
    if options.sequence_length is None:
        return SequenceRows(reader, entries, Origins(store, cache, entries) if options.origins else None)
    if manifest.chunking is not None:
        raise UsageError(
            f"the corpus was cut into examples (chunking.mode {manifest.chunking.mode}), which are not packed",
            remedy="leave out --sequence-length: each row is an example then",
        )
    if options.origins:
        raise UsageError("a sample of several documents has no one origin", remedy="leave out --origins")
    return SampleRows(reader, entries, options.sequence_length)


def _rows_of_a_file(rows: int, tokens: int) -> int:
    return max(1, rows * _FILE_TOKENS // max(1, tokens))


def _facts(manifest: Manifest, split: Split, options: ExportOptions) -> dict[str, Any]:
    return {"digest": manifest.digest, "split": split, **asdict(options)}


class _Export:
    """The files of one split."""

    def __init__(self, rows: Rows, out: Path, facts: dict[str, Any], rows_per_file: int) -> None:
        self._rows, self._out, self._facts = rows, out, facts
        self._firsts = range(0, len(rows), rows_per_file)
        count = len(self._firsts)
        self.names = [f"{facts['split']}-{number:05d}-of-{count:05d}.parquet" for number in range(count)]

    def run(self, progress: Progress) -> int:
        """Write the files that are missing; their number."""
        with store_errors("write", str(self._out)):
            make_folders(self._out)
        with if_free(self._out / _LOCK) as alone:
            if not alone:
                raise UsageError(f"{self._out}: another export is being written there", remedy="let it end first")
            self._refuse_others()
            return self._write_missing(progress)

    def _write_missing(self, progress: Progress) -> int:
        total, written = len(self._rows), 0
        for name, first in zip(self.names, self._firsts, strict=True):
            end = min(first + self._firsts.step, total)
            if not self._is_there(self._out / name, first, end):
                self._write(self._out / name, first, end, lambda done: progress(done, total))
                written += 1
            progress(end, total)
        return written

    def _refuse_others(self) -> None:
        """Rows of another export of the same split would be loaded together with these."""
        for path in sorted(self._out.glob("*.parquet")):
            match = _OURS.match(path.name)
            if match and match["split"] == self._facts["split"] and path.name not in self.names:
                raise _other(path)
        for path in self._out.glob(f"{TEMPORARY_PREFIX}*"):
            with suppress(FileNotFoundError):
                path.unlink()

    def _is_there(self, path: Path, first: int, end: int) -> bool:
        if not path.exists():
            return False
        try:
            metadata = pq.read_schema(path).metadata or {}
        except (pa.ArrowException, OSError):
            raise _other(path) from None
        if metadata.get(_METADATA_KEY) != self._label(first, end):
            raise _other(path)
        return True

    def _write(self, path: Path, first: int, end: int, progress: Callable[[int], None]) -> None:
        schema = self._rows.schema.with_metadata({_METADATA_KEY: self._label(first, end)})
        done = first
        with (
            store_errors("write", str(path)),
            replacing(path) as file,
            pq.ParquetWriter(file, schema, compression="zstd", store_schema=True) as writer,
        ):
            for batch in self._rows.batches(first, end):
                writer.write_batch(batch)
                done += batch.num_rows
                progress(done)

    def _label(self, first: int, end: int) -> bytes:
        return json.dumps({**self._facts, "rows": [first, end]}, sort_keys=True).encode()


def _other(path: Path) -> UsageError:
    return UsageError(
        f"{path}: is no file of this export, but of another corpus or with other options",
        remedy="give an empty folder, or remove the files of the other export",
    )
