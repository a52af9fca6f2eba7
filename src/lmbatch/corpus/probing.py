"""What must be known of a file before it can be cut and read; found in its first bytes (or its footer)."""

from __future__ import annotations

import re

from lmbatch.config import CorpusConfig
from lmbatch.corpus import columns, csv_rows, json_head
from lmbatch.corpus.inputs import InputFile
from lmbatch.corpus.splitting import FileProbe
from lmbatch.corpus.stream import Window, byte_order_mark, compression_of, open_window
from lmbatch.errors import CorpusError
from lmbatch.store import Store

_HEAD_BYTES = 256 * 2**10
_NOT_SPACE = re.compile(rb"\S")
_CUT_BY_BYTES = ("json_array", "json_lines", "txt_lines")


def probe(store: Store, config: CorpusConfig, file: InputFile) -> FileProbe:
    """Look at one input file. Raises CorpusError for one that is not of the corpus's format at all."""
    why_not = _why_not(config, file)
    if file.size == 0:
        return FileProbe(size=0, splittable=False, why_not="it is empty", empty=True)
    if config.format == "parquet":
        return columns.probe_parquet(store, config, file, why_not)
    if config.format == "dataset":
        return columns.probe_dataset(store, config, file, why_not)
    with open_window(store, file.path) as window:
        return _probe_bytes(window, config, file, store.where(file.path), why_not)


def _why_not(config: CorpusConfig, file: InputFile) -> str:
    if not config.splittable:
        return "corpus.splittable is false"
    if config.max_records is not None:
        return "corpus.max_records counts from the beginning of the corpus"
    if config.first_records is not None:
        return "corpus.first_records counts from the beginning of the file"
    if config.format not in (*_CUT_BY_BYTES, "parquet"):
        return f"the format {config.format} is read from the beginning of the file"
    return "it is compressed" if config.format in _CUT_BY_BYTES and compression_of(file.path) != "none" else ""


def _probe_bytes(window: Window, config: CorpusConfig, file: InputFile, where: str, why_not: str) -> FileProbe:
    window.more(_HEAD_BYTES)
    begin = byte_order_mark(window, where)
    if window.damage and not window.data:
        raise CorpusError(
            f"{where}: byte 0: it cannot be decompressed: {window.damage}",
            remedy="get the file again, or leave it out with corpus.exclude",
        )
    first = _first_byte(window, begin)
    if first is None:
        return FileProbe(size=file.size, splittable=False, why_not="it holds only white space", empty=True)
    found = FileProbe(size=file.size, splittable=not why_not, why_not=why_not, content_start=begin)
    match config.format:
        case "json_array":
            return json_head.probe_array(window, first, found, where)
        case "json_lines":
            json_head.refuse_array(window, first, where)
        case "csv":
            csv_rows.check_header(window, max(begin, window.base), config, where)
    return found


def _first_byte(window: Window, position: int) -> int | None:
    """Position of the first byte at or after ``position`` that is no white space, or None."""
    while (match := _NOT_SPACE.search(window.data, max(0, position - window.base))) is None:
        window.drop(window.end)
        if not window.more(_HEAD_BYTES):
            return None
    return window.base + match.start()
