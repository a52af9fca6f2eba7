"""The files that each seed's corpus consists of, from documents. Pure: file names to bytes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lmbatch.corpus.demo_documents import DemoDocument

_BOM = b"\xef\xbb\xbf"


def csv_tree(documents: Sequence[DemoDocument], *, files: int = 8) -> dict[str, bytes]:
    """A tree of CSV files in two levels of folders, columns ``title`` and ``content``; fields hold line ends."""
    parts = (documents[number::files] for number in range(files))
    return {f"{number % 2:02d}/{number:04d}/data-{number:04d}.csv": _csv(part) for number, part in enumerate(parts)}


def _csv(documents: Sequence[DemoDocument]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["title", "content"])
    writer.writerows([document.title, document.content] for document in documents)
    return out.getvalue().encode()


def wikipedia_lines(documents: Sequence[DemoDocument]) -> dict[str, bytes]:
    """JSON Lines of ``{id, title, text}`` in a file named .json, behind a byte order mark."""
    rows = (
        {"id": str(number), "title": document.title, "text": document.content}
        for number, document in enumerate(documents)
    )
    lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    return {"wikipedia-zh-cn-small.json": _BOM + lines.encode()}


def text_lines(documents: Sequence[DemoDocument], *, files: int = 4) -> dict[str, bytes]:
    """TXT files with one text a line."""
    lines = [" ".join(document.content.split()) for document in documents]
    return {f"texts-{number}.txt": _lines(lines[number::files]) for number in range(files)}


def dataset_folder(documents: Sequence[DemoDocument], *, source: str) -> dict[str, bytes]:
    """What ``datasets`` writes with save_to_disk: rows of ``{completion, source}`` in one Arrow stream."""
    table = pa.table(
        {
            "completion": pa.array([document.content for document in documents], pa.string()),
            "source": pa.array([source] * len(documents), pa.string()),
        }
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    state: dict[str, Any] = {
        "_data_files": [{"filename": "data-00000-of-00001.arrow"}],
        "_fingerprint": "0" * 16,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    text = {"dtype": "string", "_type": "Value"}
    info = {"citation": "", "description": "", "features": {"completion": text, "source": text}, "homepage": "",
            "license": ""}  # fmt: skip
    return {
        "data-00000-of-00001.arrow": sink.getvalue(),
        "dataset_info.json": _json(info),
        "state.json": _json(state),
    }


def plays(speeches: dict[str, list[str]]) -> dict[str, bytes]:
    """A TXT file for each play, one speech a line."""
    return {f"{name}.txt": _lines(lines) for name, lines in speeches.items()}


def _lines(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
