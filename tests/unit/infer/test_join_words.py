"""Words of a segmented text put together again: where a space stands, and where none."""

from __future__ import annotations

import random

import pytest

from lmbatch.infer.batching.growing import GrowingText
from lmbatch.infer.text import join_words

CASES = [
    ("", ""),
    ("今天 天气 很 好", "今天天气很好"),
    ("今天 ， 天气 。", "今天，天气。"),
    ("Hello world", "Hello world"),
    ("Hello , big world ! Yes", "Hello, big world! Yes"),
    ("他 说 Hello world 了", "他说Hello world了"),
    ("使用 GPT - 2 模型", "使用GPT-2模型"),
    ("1 , 000 个 3.14 参数", "1,000个3.14参数"),
    ("version 2 of 12 34", "version 2 of 12 34"),
    ("www . a . com", "www.a.com"),
    ("12 个 月 50% 。", "12个月50%。"),
    ("（ AI ） 与 “ 智能 ”", "（AI）与“智能”"),
    ("Привет мир", "Привет мир"),
    ("안녕 세계", "안녕 세계"),
    ("かな と カナ", "かなとカナ"),
    ("café déjà", "café déjà"),
    ("a _ b", "a_b"),
    ("😀 好 Hello 😀", "😀好Hello😀"),
    ("好 , Hello", "好,Hello"),
    ("Hello , 好", "Hello,好"),
    ("𠀀 字 A", "𠀀字A"),
]


@pytest.mark.parametrize(("words", "text"), CASES)
def test_spaces_stand_only_around_words_of_scripts_that_write_them(words, text):
    assert join_words(words) == text


def test_a_text_that_grows_word_by_word_is_never_taken_back():
    rng = random.Random(0)
    words = " ".join(pair[0] for pair in CASES).split()
    for _ in range(200):
        chosen = rng.choices(words, k=12)
        growing = GrowingText(lambda ids, chosen=chosen: join_words(" ".join(chosen[: len(ids)])))
        pieces = [growing.grow(list(range(count + 1))) for count in range(len(chosen))]
        pieces.append(growing.finish(list(range(len(chosen)))))
        assert "".join(pieces) == join_words(" ".join(chosen))
