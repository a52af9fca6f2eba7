"""Text that is shown while it grows: whole characters, nothing taken back, and all of it in the end."""

from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lmbatch.infer import tidy_text
from lmbatch.infer.batching.growing import GrowingText

TEXTS = ["今天，AI来了。“你好”……", "𠮷野家 🍜 很好", "Hello, wor ld 第 1 条", "abc 你 def"]


def byte_level() -> PreTrainedTokenizerFast:
    """Every byte a token of its own: each Chinese character takes three, an emoji four."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE({char: number for number, char in enumerate(sorted(alphabet))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def word_piece() -> PreTrainedTokenizerFast:
    pieces = ["[UNK]", *sorted({char for text in TEXTS for char in text.lower() if char != " "})]
    pieces += [f"##{piece}" for piece in pieces if piece.isascii()]
    tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize(("kind", "made"), [("BPE", byte_level), ("WordPiece", word_piece)])
def test_pieces_are_whole_characters_and_add_up(kind, made):
    tokenizer = made()

    def text_of(ids):
        return tidy_text(tokenizer.decode(ids, clean_up_tokenization_spaces=False), kind)

    for text in TEXTS:
        ids = tokenizer.encode(text)
        growing = GrowingText(text_of)
        pieces = [growing.grow(ids[: count + 1]) for count in range(len(ids))]
        assert all("\ufffd" not in piece for piece in pieces)
        assert sum(map(bool, pieces)) >= len(text.replace(" ", "")) * 0.7  # it is shown while it grows
        assert "".join(pieces) + growing.finish(ids) == text_of(ids)


def test_random_bytes_come_out_as_the_decoder_has_them_in_the_end():
    tokenizer = byte_level()
    chance = random.Random(1)
    for _ in range(200):
        ids = [chance.randrange(256) for _ in range(30)]
        growing = GrowingText(tokenizer.decode)
        pieces = [growing.grow(ids[: count + 1]) for count in range(len(ids))]
        assert "".join(pieces) + growing.finish(ids) == tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("stop", "shown"),
    [(("cd",), "ab"), (("cx", "e"), "abcd"), (("abc",), ""), (("fg",), "abcdef"), (("ef", "cdef"), "ab")],
)
def test_what_may_begin_a_stop_string_is_held_back(stop, shown):
    growing = GrowingText("".join, stop)
    text, seen = "abcdef", ""
    for count in range(1, len(text) + 1):
        seen += growing.grow(list(text[:count]))
        assert shown.startswith(seen)
        if growing.stopped:
            break
    assert seen + growing.finish(list(text[:count])) == shown
