"""However a file is cut, the pieces give exactly what the whole gives, and they meet."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmbatch.config import CorpusConfig
from lmbatch.corpus import Document, FileProbe, Piece, Record, boundaries, json_array, json_scanner, list_inputs, probe
from lmbatch.corpus import stream as stream_module
from lmbatch.store import LocalStore
from support.corpus_files import corpus, read_pieces, rejected, texts


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> Iterator[None]:
    """Chunks and look-back of a few bytes, so that small files cross every border that big ones cross."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_module, "CHUNK_BYTES", 23)
        for module in (boundaries, json_array, json_scanner):
            patch.setattr(module, "CONTEXT_BYTES", 64)
        yield


NASTY = st.text(st.sampled_from([*'{}[],:"\\ \n\tid1', "中", "😀", "\u2028"]), max_size=30)
SPACE = st.text(st.sampled_from(" \n\r\t"), max_size=4)
KEYS = st.sampled_from(["id", "键", 'k"y', "k\\", "a b", "text"])
STYLES = st.sampled_from([{"separators": (",", ":")}, {"indent": 4}, {}, {"separators": (" ,\n", " : ")}])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NASTY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y", "id"]), inner, max_size=3),
    max_leaves=5,
)


def holds_lists_of(key: str, value: Any, in_list: bool = False) -> bool:
    """Could an object within ``value`` be taken for a record?"""
    if isinstance(value, dict):
        return (in_list and key in value) or any(holds_lists_of(key, inner) for inner in value.values())
    return isinstance(value, list) and any(holds_lists_of(key, inner, True) for inner in value)


@st.composite
def records(draw: st.DrawFn, key: str) -> list[dict[str, Any]]:
    extra = VALUES.filter(lambda value: not holds_lists_of(key, [value]))
    rows = draw(st.lists(st.tuples(NASTY, extra, extra), max_size=8))
    first = {"text": ""} if key == "text" else {key: 0}
    return [{**first, "text": f"t{text}", "more": [one], "z": two} for text, one, two in rows]


@st.composite
def arrays(draw: st.DrawFn, between: st.SearchStrategy[bytes] | None = None) -> tuple[bytes, list[str]]:
    """A file, and the texts of its sound records; garbage ``between`` them, or keys that are spelled in two ways."""
    rows = draw(records(draw(KEYS)))
    style, spellings = draw(STYLES), st.booleans() if between is None else st.just(draw(st.booleans()))
    parts = [json.dumps(row, ensure_ascii=draw(spellings), **style) for row in rows]
    between = st.just(b"") if between is None else between
    out = bytearray()
    for number, part in enumerate(parts):
        comma = "," if number else ""
        out += f"{draw(SPACE)}{comma}{draw(SPACE)}".encode() + (draw(between) if number else b"") + part.encode()
    body_bytes = bytes(out) + draw(SPACE).encode()
    wrapped = draw(st.booleans())
    before = draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + draw(SPACE).encode()
    head, tail = (b'{"RECORDS" :[', b" ]\n}") if wrapped else (b"[", b"]")
    return before + head + body_bytes + tail + draw(SPACE).encode(), [row["text"] for row in rows]


GARBAGE = st.sampled_from(
    [b"", b"", b"1,", b'"x",', b"null,", b'{"other": 1},', b"nonsense", b"},", b"]", b'"', b"\xff\xfe,", b"{", b"[{",
     b'{"broken": "no end,', b'{"text": "whole"} ', b",,,", b'{"te', b"[[1,", b"<html>", b'\\"', b'{"a":1},{"b":2}']
)  # fmt: skip


def probed(data: bytes, folder: str, **changes: Any) -> tuple[LocalStore, CorpusConfig, FileProbe]:
    (Path(folder) / "a.json").write_bytes(data)
    store, config = LocalStore(Path(folder)), corpus(Path(folder), **changes)
    return store, config, probe(store, config, list_inputs(store, config)[0])


def read_cut(data: bytes, cuts: list[int], **changes: Any) -> list[Record]:
    """The records with the file cut at ``cuts``, if it may be cut."""
    with tempfile.TemporaryDirectory() as folder:
        store, config, facts = probed(data, folder, **changes)
        inner = sorted({cut % len(data) for cut in cuts} - {0}) if facts.splittable else []
        pieces = [Piece("a.json", start, end) for start, end in pairwise([0, *inner, len(data)])]
        return read_pieces(store, config, pieces, facts)


CUTS = st.lists(st.integers(0, 10**6), max_size=6)
PROPERTY = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@PROPERTY
@given(arrays(), CUTS)
def test_a_sound_array_gives_its_records_however_it_is_cut(file: tuple[bytes, list[str]], cuts: list[int]) -> None:
    data, expected = file
    found = read_cut(data, cuts)
    assert rejected(found) == []
    assert texts(found) == expected
    assert [data[record.position : record.position + 1] for record in found] == [b"{"] * len(expected)


@PROPERTY
@given(arrays(GARBAGE), CUTS)
def test_garbage_between_costs_no_sound_record(file: tuple[bytes, list[str]], cuts: list[int]) -> None:
    data, expected = file
    whole = read_cut(data, [])
    assert read_cut(data, cuts) == whole
    if read_is_marked(data):
        found = texts(whole)
        assert [text for text in found if text != "whole"] == expected


def read_is_marked(data: bytes) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        return probed(data, folder)[2].first_key is not None


@PROPERTY
@given(arrays(GARBAGE), CUTS, st.integers(5, 60))
def test_a_small_limit_changes_nothing_about_cutting(
    file: tuple[bytes, list[str]], cuts: list[int], limit: int
) -> None:
    data, expected = file
    whole = read_cut(data, [], max_record_bytes=limit)
    assert read_cut(data, cuts, max_record_bytes=limit) == whole
    assert set(texts(whole)) <= {*expected, "whole"}


@PROPERTY
@given(arrays(), st.integers(0, 10**6), CUTS)
def test_a_truncated_array_gives_the_records_before_the_cut(
    file: tuple[bytes, list[str]], end: int, cuts: list[int]
) -> None:
    data, expected = file
    head = data[: max(data.index(b"[") + 1, end % (len(data.rstrip()) or 1))]
    whole = read_cut(head, [])
    assert read_cut(head, cuts) == whole
    assert texts(whole) == expected[: len(texts(whole))]
    assert [refusal.reason for refusal in rejected(whole)] == ["truncated"]


@PROPERTY
@given(st.lists(NASTY, max_size=8), st.booleans(), st.booleans(), CUTS, st.sampled_from(["json_lines", "txt_lines"]))
def test_lines_give_the_same_however_they_are_cut(
    given_texts: list[str], bom: bool, windows: bool, cuts: list[int], layout: str
) -> None:
    given_texts = [f"t{text}" for text in given_texts] or ["t"]
    if layout == "txt_lines":
        given_texts = [text.replace("\n", "").replace("\r", "") for text in given_texts]
    lines = [json.dumps({"text": text}) if layout == "json_lines" else text for text in given_texts]
    data = (b"\xef\xbb\xbf" if bom else b"") + ("\r\n" if windows else "\n").join(lines).encode()
    found = read_cut(data, cuts, layout=layout)
    assert rejected(found) == []
    assert texts(found) == given_texts
    assert len({record.position for record in found}) == len(given_texts)


def test_every_single_cut_of_one_file() -> None:
    rows = [{"id": n, "text": f'第{n}回 {{}}[],{{"id":', "deep": {"id": [1, {"x": 2}]}} for n in range(5)]
    data = b'\xef\xbb\xbf {"RECORDS": [ ' + json.dumps(rows, ensure_ascii=False, indent=1).encode()[1:] + b"}\n"
    whole = read_cut(data, [])
    assert texts(whole) == [row["text"] for row in rows]
    for cut in range(1, len(data)):
        assert read_cut(data, [cut]) == whole
    assert read_cut(data, list(range(len(data)))) == whole


def test_white_space_beyond_a_boundary_s_length_costs_nothing() -> None:
    gap = b" " * 10_000
    data = b"[" + b",".join(gap + b'{"id"' + gap + b':1,"text":"%d"}' % n + gap for n in range(4)) + b"]"
    whole = read_cut(data, [], max_record_bytes=100_000)
    assert texts(whole) == ["0", "1", "2", "3"]
    assert read_cut(data, [15_000, 31_000, 50_000], max_record_bytes=100_000) == whole


def test_documents_are_equal_but_for_nothing() -> None:
    data = b'[{"id":7,"text":"a"}]'
    assert read_cut(data, [], id_field="id") == [Document("a", "a.json", 1, "7", {})]
