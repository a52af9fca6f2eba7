"""The cuts as pure functions, against the same rules written plainly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lmbatch.config import ChunkingConfig, fingerprint
from lmbatch.preprocess.chunking import Cut, examples_of, lines_of, split_up, totals, truncated, whole_chunks
from lmbatch.tokens.engines import Ids
from support.wudao import config_for

EOD = 9
TEXTS = st.lists(st.lists(st.integers(10, 60), max_size=12), max_size=9)
LENGTHS = st.integers(2, 8)


def ids_of(texts: list[list[int]]) -> Ids:
    flat = [token for text in texts for token in text]
    return Ids(np.array(flat, np.uint32), np.cumsum([len(text) for text in texts], dtype=np.int64))


def cut_up(cut: Cut, texts: list[list[int]]) -> list[list[list[int]]]:
    found = examples_of(cut, np.array([len(text) for text in texts], np.int64))
    assert found.lengths is not None
    assert found.sequences is not None
    parts = [found.flat[end - n : end].tolist() for end, n in ends_of(found.lengths)]
    assert [sum(map(len, parts[end - n : end])) for end, n in ends_of(found.sequences)] == found.tokens.tolist()
    return [parts[end - n : end] for end, n in ends_of(found.sequences)]


def ends_of(counts: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(np.cumsum(counts).tolist(), counts.tolist(), strict=True))


@given(TEXTS, LENGTHS)
def test_truncated_keeps_the_first_tokens_and_eod(texts, length):
    cut = truncated(ids_of(texts), length, EOD)
    assert cut_up(cut, texts) == [[[*text[: length - 1], EOD]] if text else [] for text in texts]
    assert cut.kept.tolist() == [min(len(text), length - 1) for text in texts]
    assert cut.eod == sum(map(bool, texts))
    assert cut.flat.dtype == np.uint32


@given(TEXTS, LENGTHS)
def test_split_up_keeps_every_token_and_ends_every_example(texts, length):
    cut = split_up(ids_of(texts), length, EOD)
    step = length - 1
    assert cut_up(cut, texts) == [[[*text[at : at + step], EOD] for at in range(0, len(text), step)] for text in texts]
    assert cut.kept.tolist() == [len(text) for text in texts]
    assert cut.eod == sum(-(-len(text) // step) for text in texts)
    assert cut.flat.dtype == np.uint32


@given(TEXTS, LENGTHS)
def test_whole_chunks_are_of_one_length_and_begin_at_the_beginning(texts, length):
    cut = whole_chunks(ids_of(texts), length)
    expected = [
        [text[at : at + length] for at in range(0, len(text), length) if at + length <= len(text)] for text in texts
    ]
    assert cut_up(cut, texts) == expected
    assert cut.kept.tolist() == [len(text) // length * length for text in texts]
    assert cut.eod == 0


@given(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=6))
def test_totals_are_sums_of_runs(runs):
    values = np.array([value for run in runs for value in run], np.int64)
    assert totals(values, np.array([len(run) for run in runs], np.int64)).tolist() == [sum(run) for run in runs]


def test_blank_lines_are_no_examples():
    assert lines_of("甲\n\n  乙 \r\n\t\n\u3000\n丙") == ["甲", "  乙 ", "丙"]
    assert lines_of(" \n") == []


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"mode": "lines"}, "lines needs a length"),
        ({"mode": "packed", "length": 512}, "packed cuts nothing"),
        ({"mode": "truncate", "length": 1}, "greater than or equal to 2"),
        ({"mode": "split", "length": 9}, "'packed', 'lines', 'split_lines', 'truncate', 'drop_short' or 'best_fit'"),
    ],
)
def test_what_makes_no_sense_is_refused(values, what):
    with pytest.raises(ValidationError, match=what):
        ChunkingConfig(**values)


def test_packed_is_what_no_chunking_at_all_is(tmp_path):
    plain = fingerprint(config_for(tmp_path))
    assert fingerprint(config_for(tmp_path, chunking={"mode": "packed"})) == plain
    assert fingerprint(config_for(tmp_path, chunking={"mode": "truncate", "length": 8})) != plain
