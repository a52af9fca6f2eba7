"""The table of ideographs: the ids of Hugging Face over any mixture, whatever is remembered and wherever it is cut."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokens_helpers import KINDS, TRAINING, bert, gpt2, mixed_text

from lmbatch.tokens.engines import Engine, HuggingFaceEngine, UnfitError, make_engine
from lmbatch.tokens.engines.table import make_table

HOSTILE = ("", "中", "a", "\u0301", "中\u0301国", "，\u0301a\u0301，", "\n")
TEXTS = [*(mixed_text(seed) for seed in range(40, 46)), *TRAINING, *HOSTILE]


def same(engine: Engine, backend: Tokenizer, texts: list[str]) -> bool:
    ids, expected = engine.encode(texts), HuggingFaceEngine(backend).encode(texts)
    return np.array_equal(ids.flat, expected.flat) and np.array_equal(ids.ends, expected.ends)


@pytest.fixture(params=["bert", "bert-cased"])
def backend(request: pytest.FixtureRequest) -> Tokenizer:
    made = KINDS[request.param]()
    made.encode_special_tokens = True
    return made


def test_any_mixture_gives_the_ids_of_hugging_face(backend: Tokenizer) -> None:
    engine = make_table(backend)
    assert engine.name == "table+nanotoken"
    assert same(engine, backend, TEXTS)
    assert same(engine, backend, TEXTS)  # with what it remembers by now
    assert all(same(engine, backend, [text]) for text in TEXTS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_REMEMBERED", 3),
        ("_LONGEST_REMEMBERED", 0),
        ("_CHARACTERS_AT_ONCE", 50),
        ("_CHARACTERS_PER_RUN", 10**6),
        ("_CHARACTERS_PER_RUN", 0),
    ],
)
def test_no_limit_changes_the_ids(backend: Tokenizer, name: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"lmbatch.tokens.engines.table.{name}", value)
    engine = make_table(backend)
    assert same(engine, backend, TEXTS)
    assert same(engine, backend, TEXTS[::-1])


def test_what_is_remembered_is_bounded(backend: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmbatch.tokens.engines.table._REMEMBERED", 50)
    engine = make_table(backend)
    for number in range(100):
        engine.encode([f"第{number}条，第{'9' * 1000}{number}条"])
    assert len(engine._remembered) <= 52
    assert max(map(len, engine._remembered)) <= 32


def test_a_tokenizer_that_does_not_split_ideographs_gets_no_table() -> None:
    from tokenizers import normalizers

    joined = bert()
    joined.normalizer = normalizers.BertNormalizer(handle_chinese_chars=False)
    for backend in (joined, gpt2()):
        with pytest.raises(UnfitError):
            make_table(backend)
    found = make_engine(joined, "auto")
    assert found is not None
    assert found.name == "nanotoken"
