"""Compressed files that are whole, of several parts, truncated or damaged."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from lmbatch.errors import CorpusError
from support.corpus_files import corpus, read_whole, rejected, texts, zstd

ROWS = [{"id": n, "text": f"第{n}回{random.Random(n).randbytes(40).hex()}"} for n in range(20_000)]
LINES = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in ROWS)
LAYOUTS = ["json_lines", "json_array", "csv", "txt_lines", "txt_files"]
PACK = {"gz": gzip.compress, "zst": zstd}


@pytest.mark.parametrize("kind", PACK)
def test_several_members_are_one_stream(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"a.jsonl.{kind}").write_bytes(PACK[kind](LINES[:1000]) + PACK[kind](LINES[1000:]))
    assert texts(read_whole(corpus(tmp_path, "json_lines"))) == [row["text"] for row in ROWS]


def content(layout: str) -> bytes:
    """The rows in one of the formats."""
    match layout:
        case "json_array":
            return b"[" + LINES.replace(b"\n", b",")[:-1] + b"]"
        case "csv":
            return b"id,text\n" + b"".join(f"{row['id']},{row['text']}\n".encode() for row in ROWS)
        case "txt_lines":
            return b"".join(f"{row['text']}\n".encode() for row in ROWS)
    return LINES


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_precedes_a_break_survives_and_the_break_is_told(tmp_path: Path, kind: str, layout: str) -> None:
    packed = PACK[kind](content(layout))
    (tmp_path / f"a.{kind}").write_bytes(packed[: len(packed) * 2 // 3])
    records = read_whole(corpus(tmp_path, layout))
    found = texts(records)
    assert found == [row["text"] for row in ROWS][: len(found)]
    assert (len(found) > len(ROWS) // 3) == (layout != "txt_files")
    assert {refusal.reason for refusal in rejected(records)} <= {"truncated", "damaged_file"}
    assert 1 <= len(rejected(records)) <= 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_wrong_checksum_is_told_though_all_is_there(tmp_path: Path, layout: str) -> None:
    packed = bytearray(gzip.compress(content(layout)))
    packed[-6] ^= 1
    (tmp_path / "a.gz").write_bytes(packed)
    records = read_whole(corpus(tmp_path, layout))
    assert len(texts(records)) == (0 if layout == "txt_files" else len(ROWS))
    [refusal] = rejected(records)
    assert "CRC" in refusal.detail
    assert refusal.reason == ("truncated" if layout == "txt_files" else "damaged_file")


@pytest.mark.parametrize("kind", PACK)
def test_a_file_that_is_not_compressed_at_all_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"a.jsonl.{kind}").write_bytes(LINES)
    with pytest.raises(CorpusError, match=r"a\.jsonl\.\w+: byte 0: it cannot be decompressed"):
        read_whole(corpus(tmp_path, "json_lines"))
