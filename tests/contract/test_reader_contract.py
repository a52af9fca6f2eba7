"""One suite over every reader: the same texts in every format come out the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmbatch.corpus import Document
from lmbatch.errors import InputMissingError
from support.corpus_files import KINDS, Kind, corpus, read_split, read_whole, rejected, texts

TEXTS = [
    "宴桃园豪杰三结义\u3000斩黄巾英雄首立功",
    'emoji 😀👩‍👩‍👧, quotes " \' and \\ backslashes \\\\" end',
    '[{"id": 1, "text": "not a record"}, {"id":2}]},{"id":',
    "tabs\tand a zero-width\u200bcharacter, U+2028\u2028 and U+0085\x85 are no line ends",
    "x",
    "古今多少事，都付笑谈中。" * 50,
]
WITH_LINES = [*TEXTS, "两行\n文字\r\n和\n\n空行", "\n  leading and trailing \n"]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


def texts_for(kind: Kind) -> list[str]:
    return TEXTS if kind.lines else WITH_LINES


def write(kind: Kind, folder: Path, given: list[str] | list[bytes]) -> None:
    kind.write(folder, [text.encode() if isinstance(text, str) else text for text in given])


def test_the_same_texts_come_out(kind: Kind, tmp_path: Path) -> None:
    write(kind, tmp_path, texts_for(kind))
    records = read_whole(corpus(tmp_path, kind.format))
    assert rejected(records) == []
    assert texts(records) == texts_for(kind)


@pytest.mark.parametrize("target", [1, 7, 100, 1000])
def test_cutting_changes_nothing(kind: Kind, tmp_path: Path, target: int) -> None:
    write(kind, tmp_path, texts_for(kind))
    config = corpus(tmp_path, kind.format)
    assert read_split(config, target) == read_whole(config)


def test_the_position_is_where_the_record_begins(kind: Kind, tmp_path: Path) -> None:
    write(kind, tmp_path, texts_for(kind))
    records = read_whole(corpus(tmp_path, kind.format))
    if not kind.bytes_:
        assert [record.position for record in records] == list(range(len(records)))
    for record in records:
        data = (tmp_path / record.path).read_bytes()
        if kind.bytes_ and not record.path.endswith(("gz", "zst")):
            beginning = {"csv": b"", "txt_lines": b"", "txt_files": b""}.get(kind.format, b"{")
            assert data[record.position :].startswith(beginning)
            assert data[: record.position].endswith((b"[", b",", b" ", b"\n", b"\xef\xbb\xbf")) or record.position == 0
    assert len({(record.path, record.position) for record in records}) == len(records)


def test_bad_utf8_costs_one_record_and_names_its_byte(kind: Kind, tmp_path: Path) -> None:
    bad = "好".encode() + b"\xff" + "邻居".encode()
    write(kind, tmp_path, ["第一".encode(), bad, "第三".encode(), "第四".encode()])
    records = read_whole(corpus(tmp_path, kind.format))
    assert texts(records) == ["第一", "第三", "第四"]
    [refusal] = rejected(records)
    assert (refusal.reason, refusal.dropped) == ("invalid_utf8", False)
    assert "0xff" in refusal.detail
    data = (tmp_path / refusal.path).read_bytes()
    if not kind.bytes_:
        assert refusal.detail.startswith("row 1, column 'text', byte 3")
    elif not refusal.path.endswith(("gz", "zst")):
        assert refusal.detail.startswith(f"byte {data.index(0xFF)}:")


def test_a_record_over_the_limit_costs_only_itself(kind: Kind, tmp_path: Path) -> None:
    write(kind, tmp_path, ["前", "长" * 1000, "后"])
    records = read_whole(corpus(tmp_path, kind.format, max_record_bytes=500))
    assert texts(records) == ["前", "后"]
    [refusal] = rejected(records)
    assert refusal.reason == "record_too_large"
    assert refusal.length >= 3000


def test_a_record_at_the_limit_is_kept(kind: Kind, tmp_path: Path) -> None:
    write(kind, tmp_path, ["长" * 1000])
    assert texts(read_whole(corpus(tmp_path, kind.format, max_record_bytes=3100))) == ["长" * 1000]


def test_an_empty_text_is_quarantined_or_dropped_as_the_config_says(kind: Kind, tmp_path: Path) -> None:
    write(kind, tmp_path, ["前", " \t", "后"])
    if kind.lines:
        assert texts(read_whole(corpus(tmp_path, kind.format))) == ["前", "后"]  # a blank line is no record
        return
    for choice, dropped in (("quarantine", False), ("drop", True)):
        records = read_whole(corpus(tmp_path, kind.format, missing_text=choice))
        assert texts(records) == ["前", "后"]
        [refusal] = rejected(records)
        assert refusal.reason == ("empty_file" if kind.format == "txt_files" else "empty_text")
        assert refusal.dropped is dropped


def test_an_empty_corpus_is_an_error(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="no input files"):
        read_whole(corpus(tmp_path, kind.format, obtain="look in the cupboard"))


def test_the_first_records_alone(kind: Kind, tmp_path: Path) -> None:
    write(kind, tmp_path, texts_for(kind))
    records = read_split(corpus(tmp_path, kind.format, first_records=2), 10)
    per_file = len(texts_for(kind)) if kind.format == "txt_files" else 2
    assert texts(records) == texts_for(kind)[:per_file]


def test_ids_and_metadata(kind: Kind, tmp_path: Path) -> None:
    if kind.format.startswith("txt"):
        return
    write(kind, tmp_path, ["一", "二"])
    records = read_whole(corpus(tmp_path, kind.format, id_field="id", metadata_fields=("id",)))
    assert [record.id for record in records if isinstance(record, Document)] == ["0", "1"]
    assert [str(record.metadata["id"]) for record in records if isinstance(record, Document)] == ["0", "1"]
