"""Small input files in every format that a corpus can have, and how to read them back."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from lmbatch.config import CorpusConfig
from lmbatch.corpus import (
    Document,
    FileProbe,
    Piece,
    Record,
    Rejected,
    Seen,
    list_inputs,
    probe,
    read_piece,
    split_file,
)
from lmbatch.store import LocalStore


def corpus(raw: Path, layout: str = "json_array", **changes: Any) -> CorpusConfig:
    """A corpus of all files in ``raw``, with the text in the field `text`."""
    return CorpusConfig(**{"name": "test", "format": layout, "raw": str(raw), "include": ("**",), **changes})


def read_whole(config: CorpusConfig) -> list[Record]:
    """Every record of every file, each file read as one piece."""
    return read_split(config, 2**62)


def read_split(config: CorpusConfig, target_bytes: int) -> list[Record]:
    """Every record of every file, cut into pieces of ``target_bytes``; checks that the pieces meet and count."""
    store = LocalStore(Path(config.raw))
    records: list[Record] = []
    for file in list_inputs(store, config):
        facts = probe(store, config, file)
        records += read_pieces(store, config, split_file(file, facts, config, target_bytes), facts)
    return records


def read_pieces(store: LocalStore, config: CorpusConfig, pieces: Sequence[Piece], facts: FileProbe) -> list[Record]:
    """The records of the pieces of one file, which must meet."""
    facts = FileProbe.model_validate_json(facts.model_dump_json())  # as the plan stores it
    records: list[Record] = []
    before = None
    for piece in pieces:
        seen = Seen()
        found = list(read_piece(store, config, piece, facts, seen))
        assert seen.records == len(found)
        assert before is None or before.end_position == seen.first_position
        assert seen.first_position <= seen.end_position
        records += found
        before = seen
    return records


def texts(records: Sequence[Record]) -> list[str]:
    """The texts of the documents."""
    return [record.text for record in records if isinstance(record, Document)]


def rejected(records: Sequence[Record]) -> list[Rejected]:
    """What is no document."""
    return [record for record in records if isinstance(record, Rejected)]


def array(records: Sequence[Any], **style: Any) -> bytes:
    """A JSON array, compact unless a style is given."""
    return json.dumps(records, ensure_ascii=False, **(style or {"separators": (",", ":")})).encode()


Texts = Sequence[bytes]
Write = Callable[[Path, Texts], None]


@dataclass(frozen=True)
class Kind:
    """One way to store texts. ``position_of``: does a record's position count bytes of the file?"""

    name: str
    format: str
    write: Write  # texts as bytes, so that bad UTF-8 can be written too
    lines: bool = False  # a text cannot hold a line end
    bytes_: bool = True  # positions are bytes


def _record(number: int, text: bytes, **style: Any) -> bytes:
    """A JSON object whose text is ``text``; bytes that are no UTF-8 stay as they are."""
    dumped = json.dumps({"id": number, "text": text.decode(errors="surrogateescape")}, ensure_ascii=False, **style)
    return dumped.encode(errors="surrogateescape")


def _json_array(separator: bytes, before: bytes, after: bytes, **style: Any) -> Write:
    def write(folder: Path, texts: Texts) -> None:
        records = separator.join(_record(number, text, **style) for number, text in enumerate(texts))
        (folder / "part-1.json").write_bytes(before + records + after)

    return write


def _lines(name: str, pack: Callable[[bytes], bytes], bom: bytes = b"", end: bytes = b"\n") -> Write:
    def write(folder: Path, texts: Texts) -> None:
        data = bom + b"".join(_record(number, text) + end for number, text in enumerate(texts))
        (folder / name).write_bytes(pack(data))

    return write


def _text_lines(name: str, pack: Callable[[bytes], bytes], bom: bytes = b"") -> Write:
    return lambda folder, texts: (folder / name).write_bytes(pack(bom + b"".join(text + b"\n" for text in texts)))


def _text_files(bom: bytes = b"") -> Write:
    def write(folder: Path, texts: Texts) -> None:
        for number, text in enumerate(texts):
            (folder / f"{number:04}.txt").write_bytes(bom + text)

    return write


def _csv(bom: bytes = b"", delimiter: str = ",") -> Write:
    def write(folder: Path, texts: Texts) -> None:
        out = io.StringIO(newline="")
        rows = csv.writer(out, delimiter=delimiter)
        rows.writerow(["id", "text"])
        rows.writerows((number, text.decode(errors="surrogateescape")) for number, text in enumerate(texts))
        (folder / "part.csv").write_bytes(bom + out.getvalue().encode(errors="surrogateescape"))

    return write


def table_of(texts: Texts) -> pa.Table:
    """Columns id and text; the text is a string column whatever its bytes are."""
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in _ends(texts)))
    column = pa.StringArray.from_buffers(len(texts), offsets, pa.py_buffer(b"".join(texts)))
    return pa.table({"id": pa.array(range(len(texts))), "text": column})


def _ends(texts: Texts) -> list[int]:
    ends = [0]
    for text in texts:
        ends.append(ends[-1] + len(text))
    return ends


def _parquet(folder: Path, texts: Texts) -> None:
    pa.parquet.write_table(table_of(texts), folder / "part.parquet", row_group_size=2)


def _dataset(folder: Path, texts: Texts) -> None:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset(table_of(texts)).save_to_disk(folder / "saved", num_shards=1)


def zstd(data: bytes) -> bytes:
    """One zstd frame."""
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as packed:
        packed.write(data)
    return bytes(out.getvalue())


BOM = b"\xef\xbb\xbf"
COMPACT: dict[str, Any] = {"separators": (",", ":")}
KINDS = [
    Kind("json_array", "json_array", _json_array(b",", b"[", b"]", **COMPACT)),
    Kind("json_array_pretty", "json_array", _json_array(b",\r\n    ", b"\n[ \n", b"\n]\n", indent=4)),
    Kind("json_array_wrapped", "json_array", _json_array(b", ", b'{"RECORDS":[', b"]}")),
    Kind("json_array_bom", "json_array", _json_array(b" ,", BOM + b"[", b"] ")),
    Kind("json_lines", "json_lines", _lines("part.jsonl", bytes)),
    Kind("json_lines_bom_crlf", "json_lines", _lines("part.json", bytes, BOM, b"\r\n")),
    Kind("json_lines_gz", "json_lines", _lines("part.jsonl.gz", gzip.compress)),
    Kind("json_lines_zst", "json_lines", _lines("part.jsonl.zst", zstd, BOM)),
    Kind("csv", "csv", _csv()),
    Kind("csv_bom", "csv", _csv(BOM)),
    Kind("txt_lines", "txt_lines", _text_lines("part.txt", bytes), lines=True),
    Kind("txt_lines_bom", "txt_lines", _text_lines("part.txt", bytes, BOM), lines=True),
    Kind("txt_lines_gz", "txt_lines", _text_lines("part.txt.gz", gzip.compress), lines=True),
    Kind("txt_files", "txt_files", _text_files()),
    Kind("txt_files_bom", "txt_files", _text_files(BOM)),
    Kind("parquet", "parquet", _parquet, bytes_=False),
    Kind("dataset", "dataset", _dataset, bytes_=False),
]
