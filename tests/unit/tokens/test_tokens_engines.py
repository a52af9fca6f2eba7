"""Engines: the ids of Hugging Face or none; a wrong one is found, dropped, and its task done again."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models
from tokens_helpers import EOD, KINDS, TRAINING, Double

from lmbatch.errors import TokenizerError
from lmbatch.tokens import Encoder, EngineDroppedError, TextTokenizer, load_tokenizer
from lmbatch.tokens.engines import Ids, make_engine
from lmbatch.tokens.engines.adversarial import adversarial_texts
from lmbatch.tokens.engines.proof import EVERY_BATCHES, FIRST_BATCH_CHARACTERS, sample_of

ENGINES = {"gpt2": "fastokens", "qwen": "fastokens", "bert": "table+nanotoken", "bert-cased": "table+nanotoken"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for name, make in KINDS.items():
        found[name] = tmp_path_factory.mktemp(name)
        make().save(str(found[name] / "tokenizer.json"))
    return found


@pytest.fixture
def tokenizer(folders: dict[str, Path]) -> TextTokenizer:
    return load_tokenizer(folders["gpt2"], EOD)


def plain_ids(tokenizer: TextTokenizer, texts: Sequence[str]) -> list[list[int]]:
    """What Hugging Face gives for each text, whole."""
    return [[*tokenizer.backend.encode(text, add_special_tokens=False).ids, tokenizer.eod_id] for text in texts]


def as_lists(arrays: Sequence[np.ndarray]) -> list[list[int]]:
    return [array.tolist() for array in arrays]


# ── the engines that are installed ───────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_gives_the_ids_of_hugging_face(folders: dict[str, Path], kind: str) -> None:
    tokenizer = load_tokenizer(folders[kind], EOD)
    encoder = Encoder(tokenizer)
    assert encoder.engine == ENGINES[kind]
    texts = [*adversarial_texts([EOD, "[SEP]", "<pad>"]), *TRAINING]
    assert as_lists(encoder.encode(texts)) == plain_ids(tokenizer, texts)
    assert encoder.engine == ENGINES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_no_engine_lets_a_text_forge_the_end_of_a_document(folders: dict[str, Path], kind: str) -> None:
    tokenizer = load_tokenizer(folders[kind], EOD)
    for engine in ("huggingface", "auto", ENGINES[kind].split("+")[-1]):
        ids = Encoder(tokenizer, engine).encode([f"好{EOD}坏 {EOD}", EOD])
        assert [(array == tokenizer.eod_id).sum() for array in ids] == [1, 1]


def test_an_added_token_that_is_not_special_is_recognised_by_whatever_encodes(folders: dict[str, Path]) -> None:
    for kind in KINDS:
        tokenizer = load_tokenizer(folders[kind], EOD)
        tokenizer.backend.add_tokens(["专利权人", " aren't"])
        texts = ["专利权人的合法权益 aren't  aren't", *adversarial_texts(["专利权人"])]
        assert as_lists(Encoder(tokenizer).encode(texts)) == plain_ids(tokenizer, texts)


def test_no_texts_and_empty_texts(tokenizer: TextTokenizer) -> None:
    for engine in ("huggingface", "auto"):
        encoder = Encoder(tokenizer, engine)
        assert encoder.encode([]) == []
        assert as_lists(encoder.encode(["", "", ""])) == [[tokenizer.eod_id]] * 3


# ── choosing one ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_hugging_face_on_request(tokenizer: TextTokenizer) -> None:
    assert Encoder(tokenizer, "huggingface").engine == "huggingface"


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name in ("nanotoken", "fastokens"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.usefixtures("nothing_installed")
def test_without_the_extra_hugging_face_does_the_work_and_says_nothing(
    folders: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for kind in KINDS:
        tokenizer = load_tokenizer(folders[kind], EOD)
        encoder = Encoder(tokenizer)
        assert encoder.engine == ("table+huggingface" if kind.startswith("bert") else "huggingface")
        assert as_lists(encoder.encode(TRAINING)) == plain_ids(tokenizer, TRAINING)
    assert not caplog.records


@pytest.mark.usefixtures("nothing_installed")
def test_an_engine_that_is_asked_for_by_name_must_be_there(tokenizer: TextTokenizer) -> None:
    with pytest.raises(TokenizerError, match="tokenizer.engine is fastokens") as caught:
        Encoder(tokenizer, "fastokens")
    assert "lmbatch[fast]" in str(caught.value)


def test_an_engine_that_does_not_know_the_model(folders: dict[str, Path]) -> None:
    with pytest.raises(TokenizerError, match="nanotoken"):
        make_engine(load_tokenizer(folders["gpt2"], EOD).backend, "nanotoken")
    with pytest.raises(TokenizerError, match="fastokens"):
        make_engine(load_tokenizer(folders["bert"], EOD).backend, "fastokens")
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    assert make_engine(words, "auto") is None


# ── a wrong one ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_one_that_is_wrong_on_the_fixed_set_never_writes(
    tokenizer: TextTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    double = Double(tokenizer, "İ")
    encoder = Encoder(tokenizer, fast=double)
    assert encoder.engine == "huggingface"
    assert double.calls == 1
    assert "double is not used any more" in caplog.text
    assert "sha256:" in caplog.text
    encoder.encode(["中"])
    assert double.calls == 1


def test_one_that_is_wrong_in_the_first_batch_is_replaced_at_once(
    tokenizer: TextTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Encoder(tokenizer, fast=Double(tokenizer, "陷阱"))
    encoder.begin("task-000007")
    texts = ["第一条", "这里有陷阱。", "第三条"]
    assert as_lists(encoder.encode(texts)) == plain_ids(tokenizer, texts)
    assert encoder.engine == "huggingface"
    assert "document 1 (sha256:" in caplog.text
    assert "of task-000007" in caplog.text
    assert "陷阱" not in caplog.text


@pytest.mark.parametrize(
    "error", [None, ValueError("no"), type("PanicException", (BaseException,), {})("index out of bounds")], ids=repr
)
def test_one_that_fails_later_asks_for_the_task_to_begin_again(
    tokenizer: TextTokenizer, error: BaseException | None
) -> None:
    encoder = Encoder(tokenizer, fast=Double(tokenizer, "陷阱", error=error))
    encoder.begin("task-000000")
    for _ in range(EVERY_BATCHES):
        encoder.encode(["第一条"])
    assert encoder.engine == "double"
    with pytest.raises(EngineDroppedError):
        encoder.encode(["陷阱"])
    encoder.begin("task-000000")
    assert encoder.engine == "huggingface"
    assert as_lists(encoder.encode(["陷阱"])) == plain_ids(tokenizer, ["陷阱"])


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_to_be_stopped_is_not_a_difference(tokenizer: TextTokenizer, stop: type[BaseException]) -> None:
    encoder = Encoder(tokenizer, fast=Double(tokenizer, "陷阱", error=stop()))
    with pytest.raises(stop):
        encoder.encode(["陷阱"])
    assert encoder.engine == "double"


class Losing(Double):
    """Gives the ids of one text less, or of the wrong length in all."""

    def __init__(self, tokenizer: TextTokenizer, damage: Callable[[Ids], Ids]) -> None:
        super().__init__(tokenizer, "no such text")
        self._damage = damage

    def encode(self, texts: Sequence[str]) -> Ids:
        ids = super().encode(texts)
        return self._damage(ids) if self.calls > 1 else ids


@pytest.mark.parametrize(
    "damage",
    [
        lambda ids: Ids(ids.flat, ids.ends[:-1]),
        lambda ids: Ids(ids.flat[:-1], ids.ends),
        lambda ids: Ids(ids.flat, ids.ends[[1, 0, 2]]),
    ],
    ids=["a text less", "an id less", "ends out of order"],
)
def test_one_that_loses_ids_outside_the_sample_is_found(
    tokenizer: TextTokenizer, damage: Callable[[Ids], Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmbatch.tokens.encode.sample_of", lambda texts, batch: [])
    encoder = Encoder(tokenizer, fast=Losing(tokenizer, damage))
    texts = ["第一条", "第二条 为了", "第三条"]
    assert as_lists(encoder.encode(texts)) == plain_ids(tokenizer, texts)
    assert encoder.engine == "huggingface"


# ── samples and the fixed set ────────────────────────────────────────────────────────────────────────────────────────
def test_what_is_compared_of_a_task() -> None:
    texts = ["字" * 1000] * 400
    first = sample_of(texts, 0)
    assert 40 <= len(first) <= FIRST_BATCH_CHARACTERS // 1000
    assert first == sample_of(texts, 0)
    assert max(first) > 300  # all over the batch
    assert [batch for batch in range(2 * EVERY_BATCHES + 1) if sample_of(texts, batch)] == [0, 32, 64]
    assert sample_of(["字" * 10**6, "字" * 10**5], 0) == [1]  # never nothing at all
    assert sample_of(["a", "b", "c"], 0) == [0, 1, 2]
    assert sample_of([], 0) == []


def test_the_fixed_set_is_fixed_and_is_text() -> None:
    texts = adversarial_texts({"[SEP]", EOD})
    assert texts == adversarial_texts([EOD, "[SEP]"])
    assert len(texts) > 300
    assert "\n".join(texts).encode()
    for needed in ("\u200d", "\U0002a6d6", "\x00", "\r\n", EOD, "\u0301", "\U000323b0", "İ"):
        assert any(needed in text for text in texts)
