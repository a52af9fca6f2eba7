"""CSV: quoting, line ends, wrong rows, broken quotes."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmbatch.corpus import Record
from lmbatch.corpus import stream as stream_module
from lmbatch.errors import CorpusError
from support.corpus_files import corpus, read_whole, rejected, texts


def read(tmp_path: Path, data: bytes, **changes: object) -> list[Record]:
    (tmp_path / "a.csv").write_bytes(data)
    return read_whole(corpus(tmp_path, "csv", **changes))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([*',";\n\t ab文，', "\r\n"]), max_size=20).map("".join), max_size=6),
    st.sampled_from([",", ";", "\t", "，"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.integers(1, 40),
)
def test_what_csv_writes_is_read(
    given_texts: list[str], delimiter: str, line_end: str, quoting: int, chunk: int
) -> None:
    given_texts = [f"t{text}" for text in given_texts]
    out = io.StringIO(newline="")
    rows = csv.writer(out, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    rows.writerows([["text", "n"], *([text, number] for number, text in enumerate(given_texts))])
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_module, "CHUNK_BYTES", chunk)
        records = read(Path(folder), out.getvalue().encode(), csv_delimiter=delimiter)
    assert rejected(records) == []
    assert texts(records) == given_texts


def test_a_quote_within_a_field_is_text(tmp_path: Path) -> None:
    records = read(tmp_path, b'text,n\n5" disk,1\nnext,2\n"a ""b"" c",3\n')
    assert texts(records) == ['5" disk', "next", 'a "b" c']


def test_blank_lines_and_a_missing_last_line_end_cost_nothing(tmp_path: Path) -> None:
    assert texts(read(tmp_path, b"\n\r\ntext,n\n\na,1\n\r\n\nb,2")) == ["a", "b"]


def test_a_row_of_another_length_is_set_aside(tmp_path: Path) -> None:
    records = read(tmp_path, b"text,n\na,1\nb\nc,3,4\nd,4\n")
    assert texts(records) == ["a", "d"]
    assert [(r.reason, r.position) for r in rejected(records)] == [
        ("wrong_number_of_fields", 11),
        ("wrong_number_of_fields", 13),
    ]


def test_a_quote_that_is_never_closed_is_truncated_not_a_document(tmp_path: Path) -> None:
    records = read(tmp_path, b'text,n\na,1\n"b,2\nc,3\n')
    assert texts(records) == ["a"]
    assert [(r.reason, r.position, r.length) for r in rejected(records)] == [("truncated", 11, 9)]


def test_a_lone_carriage_return_is_set_aside(tmp_path: Path) -> None:
    records = read(tmp_path, b"text,n\na,1\nb\rc,2\nd,3\n")
    assert texts(records) == ["a", "d"]
    assert [refusal.reason for refusal in rejected(records)] == ["invalid_csv"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"title,n\na,1\n", "'text' 0 times: title, n"),
        (b"text,text\na,1\n", "'text' 2 times"),
        (b"text;n\na;1\n", "'text' 0 times"),
        (b"text\xff,n\na,1\n", "the header is unreadable"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        read(tmp_path, data)


def test_a_header_alone_holds_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, b"text,n\n") == []
