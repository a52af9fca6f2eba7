"""Damaged JSON is an answer: what is sound survives, what is not is told with file, byte and reason."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from lmbatch.corpus import Record, boundaries, json_scanner
from lmbatch.corpus.stream import Window
from lmbatch.errors import CorpusError
from support.corpus_files import array, corpus, read_split, read_whole, rejected, texts

ROWS = [{"id": n, "text": f"第{n}回"} for n in range(5)]
SOUND = [row["text"] for row in ROWS]


def read(tmp_path: Path, data: bytes, **changes: Any) -> list[Record]:
    """The records, which must be the same in small pieces."""
    (tmp_path / "a.json").write_bytes(data)
    config = corpus(tmp_path, **changes)
    whole = read_whole(config)
    assert read_split(config, 16) == whole
    return whole


def insert(junk: bytes) -> bytes:
    """The sound array with ``junk`` as its third element."""
    return array(ROWS).replace(b'{"id":2,', junk + b',{"id":2,')


@pytest.mark.parametrize(
    ("junk", "reason", "detail"),
    [
        (b"17", "not_an_object", "a number"),
        (b'"text"', "not_an_object", "a string"),
        (b"[1,[2]]", "not_an_object", "a list"),
        (b"null", "not_an_object", "null"),
        (b'{"id":9,"text":null}', "null_text", "null"),
        (b'{"id":9,"text":""}', "empty_text", "empty"),
        (b'{"id":9,"title":"x"}', "missing_text", "no field 'text'; the fields are: id, title"),
        (b"{}", "missing_text", "the fields are: none"),
        (b'{"id":9,"text":["a"]}', "text_not_a_string", "a list, not a string"),
        (b'{"id":9,"text":7}', "text_not_a_string", "a number, not a string"),
        (b'{"id":9,"text":"a","text":"b"}', "duplicate_key", "'text' stands twice"),
        (b'{"id":9,"text":"a" "b"}', "invalid_json", "byte"),
        (b'{"id":9,"text":"a\nb"}', "invalid_json", "byte"),
        (b'{"id":9,"text":"\\ud800"}', "invalid_json", "byte"),
        (b'{"id":9,"text":NaN}', "invalid_json", "byte"),
        (b'{"id":9,"text":"\xe4\xb8"}', "invalid_utf8", "0xe4"),
        (b'{"id":9,"text":"no end}', "invalid_json", "not finished"),
        (b'{"id":9,"text":"a"', "invalid_json", "not finished"),
        (b'{"id":9,"text":"a"]', "invalid_json", "no JSON"),
        (b"<html>", "invalid_json", "no JSON"),
        (b"}", "invalid_json", "no JSON"),
        (b"\x00\x00\x00", "invalid_json", "no JSON"),
    ],
)
def test_one_bad_record_costs_only_itself(tmp_path: Path, junk: bytes, reason: str, detail: str) -> None:
    data = insert(junk)
    records = read(tmp_path, data)
    assert texts(records) == SOUND
    [refusal] = rejected(records)
    assert (refusal.reason, refusal.path, refusal.dropped) == (reason, "a.json", False)
    assert refusal.position == data.index(junk + b',{"id":2')
    assert refusal.excerpt.startswith(junk.decode(errors="replace")[:9])
    assert detail in refusal.detail


def test_the_exact_byte_of_damage_is_named(tmp_path: Path) -> None:
    data = insert('{"id":9,"text":"中文" x}'.encode())
    [refusal] = rejected(read(tmp_path, data))
    assert refusal.detail.startswith(f"byte {data.index(b' x}') + 1}:")


@pytest.mark.parametrize("junk", [b'{"id":9,"text":null}', b'{"id":9}', b'{"id":9,"text":""}'])
def test_missing_text_may_be_dropped_by_name(tmp_path: Path, junk: bytes) -> None:
    [refusal] = rejected(read(tmp_path, insert(junk), missing_text="drop"))
    assert refusal.dropped


def test_a_duplicate_key_inside_an_inner_object_is_none(tmp_path: Path) -> None:
    data = array([{"id": 1, "text": "a", "meta": {"text": "b", "more": {"text": "c"}}}])
    assert texts(read(tmp_path, data)) == ["a"]


def test_a_duplicate_key_in_another_spelling_is_found(tmp_path: Path) -> None:
    data = '[{"id":1,"正文":"a","正文":"b"},{"id":1,"\\u6b63\\u6587":"a","\\u6b63\\u6587":"b"}]'.encode()
    assert [r.reason for r in rejected(read(tmp_path, data, text_fields=("正文",)))] == ["duplicate_key"] * 2


def test_records_of_another_shape_are_records(tmp_path: Path) -> None:
    data = insert(b'{"text":"first","id":9},{"other":{},"text":"second"}')
    assert texts(read(tmp_path, data)) == [*SOUND[:2], "first", "second", *SOUND[2:]]


def test_several_fields_make_one_text(tmp_path: Path) -> None:
    rows = [{"t": "题", "c": "文"}, {"t": None, "c": "文"}, {"t": "", "c": "文"}, {"t": None, "c": ""}, {"c": "文"}]
    records = read(tmp_path, array(rows), text_fields=("t", "c"), text_separator="\n\n")
    assert texts(records) == ["题\n\n文", "文", "文"]
    assert [refusal.reason for refusal in rejected(records)] == ["null_text", "missing_text"]


# ── the ends of a file ───────────────────────────────────────────────────────────────────────────────────────────────
def test_a_record_cut_off_in_the_middle_is_truncated(tmp_path: Path) -> None:
    data = array(ROWS)[:-8]
    records = read(tmp_path, data)
    assert texts(records) == SOUND[:-1]
    [refusal] = rejected(records)
    assert (refusal.reason, refusal.position) == ("truncated", data.rindex(b"{"))
    assert f"byte {len(data)}" in refusal.detail


@pytest.mark.parametrize("tail", [b"", b",", b", \n"])
def test_an_array_that_is_not_closed_keeps_its_records(tmp_path: Path, tail: bytes) -> None:
    data = array(ROWS)[:-1] + tail
    records = read(tmp_path, data)
    assert texts(records) == SOUND
    assert [(r.reason, r.position, r.length) for r in rejected(records)] == [("truncated", len(data), 0)]


def test_a_wrapper_that_is_not_closed_is_truncated(tmp_path: Path) -> None:
    records = read(tmp_path, b'{"RECORDS":' + array(ROWS))
    assert texts(records) == SOUND
    assert [refusal.reason for refusal in rejected(records)] == ["truncated"]


def test_fields_after_the_array_in_its_wrapper_are_no_garbage(tmp_path: Path) -> None:
    records = read(tmp_path, b'{"RECORDS":' + array(ROWS) + b', "total": 5, "more": [1]}\n')
    assert rejected(records) == []
    assert texts(records) == SOUND


@pytest.mark.parametrize("wrapped", [False, True])
def test_garbage_after_the_array_is_named_by_its_byte(tmp_path: Path, wrapped: bool) -> None:
    data = b'{"RECORDS":' + array(ROWS) + b"}" if wrapped else array(ROWS)
    records = read(tmp_path, data + b" \n<html>")
    assert texts(records) == SOUND
    assert [(r.reason, r.position, r.length) for r in rejected(records)] == [("trailing_garbage", len(data) + 2, 6)]


def test_two_arrays_in_one_file_are_both_read_and_the_seam_is_told(tmp_path: Path) -> None:
    records = read(tmp_path, array(ROWS) + b"\n" + array(ROWS))
    assert texts(records) == SOUND * 2
    assert [refusal.reason for refusal in rejected(records)] == ["trailing_garbage"]


def test_records_behind_the_end_of_the_array_are_read_and_the_end_is_told(tmp_path: Path) -> None:
    data = array(ROWS).replace(b',{"id":2', b']{"id":2')
    records = read(tmp_path, data)
    assert texts(records) == SOUND
    assert [(r.reason, r.position, r.length) for r in rejected(records)] == [
        ("trailing_garbage", data.index(b"]"), 1),
    ]


def test_a_missing_comma_costs_nothing(tmp_path: Path) -> None:
    assert texts(read(tmp_path, array(ROWS).replace(b"},{", b"}\n{"))) == SOUND


@pytest.mark.parametrize("data", [b"", b" \n\t ", b"\xef\xbb\xbf", b"\xef\xbb\xbf \n"])
def test_an_empty_file_is_an_answer(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "b.json").write_bytes(array(ROWS))
    records = read(tmp_path, data)
    assert texts(records) == SOUND
    assert [(r.reason, r.path, r.length) for r in rejected(records)] == [("empty_file", "a.json", len(data))]


def test_an_empty_array_holds_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, b" [ \n] ") == []
    assert read(tmp_path, b'{"RECORDS":[]}') == []


def test_an_array_that_breaks_off_at_once_is_truncated(tmp_path: Path) -> None:
    for data in (b"[", b"[  ", b'{"RECORDS": ['):
        assert [r.reason for r in rejected(read(tmp_path, data))] == ["truncated"]


@pytest.mark.parametrize(
    ("data", "remedy"),
    [
        (b" \n<!DOCTYPE html><html>", "get the file again"),
        (b'{"id":1,"text":"a"}\n{"id":2,"text":"b"}\n', "json_lines"),
        (b"\x1f\x8b\x08\x00", ".gz"),
        (b"id,text\n1,a\n", "corpus.format"),
        (b"\xff\xfe[\x00", "iconv"),
    ],
)
def test_a_file_that_is_no_array_is_refused_by_name(tmp_path: Path, data: bytes, remedy: str) -> None:
    (tmp_path / "page.json").write_bytes(data)
    with pytest.raises(CorpusError, match=r"page\.json: byte \d+: ") as caught:
        read_whole(corpus(tmp_path))
    assert remedy in str(caught.value.remedy)


def test_an_array_named_as_json_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(array(ROWS))
    with pytest.raises(CorpusError, match="not JSON Lines") as caught:
        read_whole(corpus(tmp_path, "json_lines"))
    assert "json_array" in str(caught.value.remedy)


# ── files that are not cut ───────────────────────────────────────────────────────────────────────────────────────────
def nested(count: int) -> list[dict[str, Any]]:
    turns = [{"id": "user", "text": "问"}, {"id": "robot", "text": "答"}]
    return [{"id": n, "text": f"对话{n}", "turns": turns} for n in range(count)]


def test_lists_of_objects_with_the_same_key_are_not_cut_and_read_whole(tmp_path: Path) -> None:
    records = read(tmp_path, array(nested(50)))
    assert rejected(records) == []
    assert texts(records) == [f"对话{n}" for n in range(50)]


def test_lists_of_objects_with_other_keys_are_cut(tmp_path: Path) -> None:
    rows = [{"id": n, "text": f"{n}", "turns": [{"from": "user"}, {"from": "robot"}]} for n in range(50)]
    assert texts(read(tmp_path, array(rows))) == [f"{n}" for n in range(50)]


@pytest.mark.parametrize("damage", [(b'"id":7,', b'"id:7,'), (b'"id":7,', b'"id":7 7,'), (b"]},", b"}},")])
def test_damage_where_files_are_not_cut_costs_few_neighbours(tmp_path: Path, damage: tuple[bytes, bytes]) -> None:
    data = array(nested(50))
    position = data.index(damage[0], data.index(b'"id":6,'))
    data = data[:position] + data[position:].replace(*damage, 1)
    records = read(tmp_path, data)
    assert set(texts(records)) >= {f"对话{n}" for n in range(50) if n not in (6, 7, 8)}
    assert rejected(records)


def test_a_lost_quote_at_the_end_of_a_record_does_not_cost_the_next(tmp_path: Path) -> None:
    rows = [{"id": row["id"], "turns": row["turns"], "text": row["text"]} for row in nested(9)]
    records = read(tmp_path, array(rows).replace('"对话4"'.encode(), '"对话4'.encode()))
    assert texts(records) == [f"对话{n}" for n in range(9) if n != 4]
    assert [refusal.reason for refusal in rejected(records)] == ["invalid_json"]


def test_depth_is_bounded_so_that_brackets_alone_take_no_memory() -> None:
    window = Window(io.BytesIO(b"[" * 100_000))
    first = next(json_scanner.ArrayScanner(window, 2**30).elements())
    assert (first.fault, first.fault_position) == ("damaged", 1024)


def test_a_key_of_punctuation_marks_nothing(tmp_path: Path) -> None:
    rows = [{",": 1, "text": "abc{", ":": 2, "x": "{", ", ": ":"} for _ in range(5)]
    assert not boundaries.usable_key(b",")
    assert texts(read(tmp_path, array(rows))) == ["abc{"] * 5


def test_nothing_deep_is_followed_without_end(tmp_path: Path) -> None:
    deep = b'{"id":1,"text":"deep","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    records = read_whole(_file(tmp_path, b"[" + deep + b"," + array(ROWS)[1:]))
    assert texts(records) == SOUND
    twice = b'{"id":1,"text":"a","meta":{"text":1},"x":' + b"[" * 1000 + b"]" * 1000 + b"}"
    assert texts(read_whole(_file(tmp_path, b"[" + twice + b"]"))) == ["a"]


def _file(tmp_path: Path, data: bytes) -> Any:
    (tmp_path / "a.json").write_bytes(data)
    return corpus(tmp_path)


SIZE = 8 * 2**20
HOSTILE = {
    "braces": b"}",
    "boundaries": b"},{",
    "openers": b"{",
    "almost_keys": b'{\\"id\\":',
    "white_space": b" ",
    "escapes": b"\\n",
    "backslashes": b"\\\\",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_content_is_read_in_linear_time(tmp_path: Path, name: str) -> None:
    filler = HOSTILE[name] * (SIZE // len(HOSTILE[name]))
    data = array(ROWS).replace('"第2回"'.encode(), b'"x' + filler + b'"')
    records = read_whole(_file(tmp_path, data))
    assert rejected(records) == []
    assert texts(records)[2] == json.loads(b'"x' + filler + b'"')


@pytest.mark.parametrize(
    "junk", [b"}", b"},{", b"{", b'"', b'""', b"[", b" ", b",", b"\\", b"\x00", b'[{"a":', b'{"a":', b'{"":'], ids=repr
)
@pytest.mark.parametrize("key", ["id", ","])
def test_hostile_garbage_ends_too_and_is_told(tmp_path: Path, junk: bytes, key: str) -> None:
    rows = [{key: n, "text": str(n)} for n in range(4)]
    data = array(rows).replace(b"},{", b"}," + junk * (2**19 // len(junk)) + b",{", 1)
    records = read_whole(_file(tmp_path, data))
    assert texts(records)[:1] == ["0"]
    assert bool(rejected(records)) == (junk not in b" ,")
    if key == "id":
        assert texts(records) == ["0", "1", "2", "3"]
