"""What holds for every text: cleaning comes to rest, makes no control characters, and grows no text unannounced."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from cleaning_dirt import LONG, anything, dirty, document
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmbatch.config import CleaningConfig
from lmbatch.corpus import Document, build_cleaner
from lmbatch.corpus.cleaning import characters
from lmbatch.corpus.cleaning.build import TRANSFORMATIONS

OFF = {"min_characters": 0, "min_chinese_share": 0, "max_symbol_share": 1, "max_duplicate_line_share": 1,
       "max_ngram_share": 1}  # fmt: skip
CLEANERS = {
    "light": build_cleaner(CleaningConfig(preset="light")),
    "zh_web": build_cleaner(CleaningConfig(preset="zh_web")),
    "zh_web without filters": build_cleaner(CleaningConfig(preset="zh_web", **OFF)),
    "zh_web, NFKC, simplified": build_cleaner(CleaningConfig(preset="zh_web", unicode="NFKC", simplify=True, **OFF)),
}
RULES: dict[str, Any] = {"unicode": "NFC"}


@pytest.mark.parametrize("name", CLEANERS)
@settings(max_examples=200, deadline=None)
@given(anything | dirty.map(lambda text: LONG + text), st.sampled_from([None, "标题", "標題", "中,国"]))
@example("<scr<script>ipt>中", None)
@example("&am<b>p;lt;b>中", None)
@example("<\u200bb>中", None)
@example("标题 标题 标题。中", "标题")
def test_cleaning_twice_is_cleaning_once(name: str, text: str, title: str | None) -> None:
    clean = CLEANERS[name]
    once = clean(document(text, title))
    if isinstance(once, Document):
        assert clean(once) is once


@settings(max_examples=100, deadline=None)
@given(anything)
def test_none_returns_the_identical_object(text: str) -> None:
    given_document = document(text, title=text)
    assert build_cleaner(CleaningConfig(preset="none"))(given_document) is given_document


def controls(text: str) -> set[str]:
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cs")} - {"\n"}


@pytest.mark.parametrize("rule", [name for name, _ in TRANSFORMATIONS])
@settings(max_examples=150, deadline=None)
@given(anything)
def test_no_rule_makes_a_control_character(rule: str, text: str) -> None:
    result = build_cleaner(CleaningConfig(**{rule: RULES.get(rule, True)}))(document(text))
    if isinstance(result, Document):
        assert controls(result.text) <= controls(text) | {"\t"}


@pytest.mark.parametrize("preset", ["light", "zh_web"])
@settings(max_examples=150, deadline=None)
@given(anything | dirty.map(lambda text: LONG + text))
def test_a_preset_leaves_no_control_character_and_no_zero_width(preset: str, text: str) -> None:
    result = build_cleaner(CleaningConfig(preset=preset))(document(text))
    if isinstance(result, Document):
        assert controls(result.text) == set()
        assert not set("\u200b\ufeff\u2060\u3000\xa0\t\r") & set(result.text)
        assert result.text == result.text.strip()
        assert "  " not in result.text
        assert "\n\n\n" not in result.text


@settings(max_examples=300, deadline=None)
@given(anything)
def test_only_a_normal_form_can_make_a_text_longer(text: str) -> None:
    clean = build_cleaner(CleaningConfig(preset="zh_web", **OFF))
    result = clean(document(text))
    if isinstance(result, Document):
        # An entity may stand for a character that NFC takes apart, so the bound is on what NFC may do at worst (3).
        assert len(result.text) <= max(len(text), len(unicodedata.normalize("NFC", text)))


def test_the_quick_way_past_invisible_characters_misses_none() -> None:
    missed = [
        hex(code)
        for code in range(0x110000)
        if characters._CONTROL.sub("", chr(code)) == "" and characters.without_invisible(chr(code)) != ""
    ]
    assert missed == []


def test_the_quick_way_past_white_space_misses_none() -> None:
    spaces = [chr(code) for code in range(0x110000) if chr(code).isspace()]
    kept = {c for c in spaces if characters.plain_whitespace(f"中{c}国") not in ("中 国", "中\n国")}
    assert kept == set("\x1c\x1d\x1e\x1f")  # control characters, which another rule removes
