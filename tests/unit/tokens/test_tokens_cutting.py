"""Long texts are cut only where the ids provably stay, and the pieces are the text."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokens_helpers import KINDS, QWEN, gpt2, mixed_text

from lmbatch.tokens.cutting import Cutter
from lmbatch.tokens.parts import parts_of


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 17])
def test_the_ids_of_the_pieces_are_those_of_the_whole(kind: str, size: int) -> None:
    backend = KINDS[kind]()
    backend.encode_special_tokens = True
    cutter = Cutter(Cutter.of(backend).place, size)
    pieces_seen = 0
    for seed in range(12):
        text = mixed_text(seed)
        pieces = list(cutter.pieces(text))
        pieces_seen += len(pieces)
        assert "".join(pieces) == text
        encodings = backend.encode_batch_fast(pieces, add_special_tokens=False)
        ids = [one for encoding in encodings for one in encoding.ids]
        assert ids == backend.encode(text, add_special_tokens=False).ids
    assert pieces_seen > 1000


def test_a_text_without_a_safe_place_stays_whole() -> None:
    cutter = Cutter.of(gpt2())
    for text in ("中" * 200_000, "1" * 200_000, ""):
        assert list(cutter.pieces(text)) == [text]


def test_pieces_have_about_the_size_that_was_asked_for() -> None:
    lengths = [len(piece) for piece in Cutter(Cutter.of(gpt2()).place, 1000).pieces("为了保护，" * 10_000)]
    assert max(lengths) <= 1005
    assert len(lengths) == pytest.approx(50, abs=1)


def bpe(pre_tokenizer: object, normalizer: object = None) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        backend.normalizer = normalizer
    return backend


def with_added(backend: Tokenizer) -> Tokenizer:
    backend.add_tokens(["a,b"])
    return backend


@pytest.mark.parametrize(
    "make",
    [
        lambda: bpe(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda: bpe(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
        lambda: bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFKC()),
        lambda: bpe(pre_tokenizers.Metaspace()),
        lambda: bpe(pre_tokenizers.Sequence([pre_tokenizers.Split(QWEN, "isolated"),  # a string, not a pattern
                                             pre_tokenizers.ByteLevel(False, use_regex=False)])),
        lambda: with_added(gpt2()),
        lambda: Tokenizer(models.WordPiece({"a": 0}, unk_token="a")),
        lambda: Tokenizer(models.Unigram()),
    ],
)  # fmt: skip
def test_an_unknown_pipeline_is_never_cut(make: Callable[[], Tokenizer]) -> None:
    assert Cutter.of(make()).place is None


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
@pytest.mark.parametrize("engine", ["huggingface", "auto"])
def test_a_text_of_many_megabytes_takes_little_memory(tmp_path: Path, kind: str, engine: str) -> None:
    KINDS[kind]().save(str(tmp_path / "tokenizer.json"))
    script = (
        "import resource, sys\n"
        "from lmbatch.tokens import Encoder, load_tokenizer\n"
        "encoder = Encoder(load_tokenizer(sys.argv[1], '<|endoftext|>'), sys.argv[2])\n"
        "encoder.encode(['中'])  # the first batch is compared with Hugging Face; it is not what is measured\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "ids = encoder.encode(['为了保护专利权人的合法权益，' * 150_000])[0]\n"
        "print(len(ids), peak() - before)"
    )
    command = [sys.executable, "-c", script, str(tmp_path), engine]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    tokens, mebibytes = map(int, done.stdout.split())
    assert tokens > 500_000
    # As one text it takes Hugging Face 500 bytes a token.
    assert mebibytes < 20 + tokens * 30 / 2**20


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_are_those_of_the_whole_spelling(kind: str) -> None:
    backend = KINDS[kind]()
    whole, parts = json.loads(backend.to_str()), parts_of(backend)
    assert {key: parts[key] for key in ("normalizer", "pre_tokenizer")} == {
        key: whole[key] for key in ("normalizer", "pre_tokenizer")
    }
    assert parts["model"] == {key: whole["model"].get(key) for key in ("type", "dropout")}
    assert parts["added_tokens"] == [{key: one[key] for key in ("content", "special")} for one in whole["added_tokens"]]
