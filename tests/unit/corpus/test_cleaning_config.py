"""Cleaning in the config: presets, overrides, fingerprints, blocked words, missing libraries."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
from cleaning_dirt import clean, document, reason

from lmbatch.config import CleaningConfig, CleaningRules, dump_yaml, fingerprint, identity, load_config
from lmbatch.config.cleaning import PRESETS
from lmbatch.corpus import Document, build_cleaner
from lmbatch.corpus.cleaning.build import FILTERS, TRANSFORMATIONS
from lmbatch.errors import ConfigError


def test_every_rule_has_a_key_and_a_place_in_the_order() -> None:
    in_order = [name for name, _ in TRANSFORMATIONS] + ["title"] + [name for name, _, _ in FILTERS]
    assert in_order == list(CleaningRules.model_fields)
    assert in_order == [name for name in CleaningConfig.model_fields if name in CleaningRules.model_fields]


@pytest.mark.parametrize("name", CleaningRules.model_fields)
def test_every_description_says_what_the_presets_do(name: str) -> None:
    said = CleaningConfig.model_fields[name].description or ""
    words = {True: "yes", False: "no"}
    for preset, rules in PRESETS.items():
        value = getattr(rules, name)
        assert f"{preset}: {words[value] if isinstance(value, bool) else value}" in said


def test_the_presets() -> None:
    """Pinned: another preset gives every corpus that names it other bytes."""
    off = CleaningRules()
    switched_on = {
        preset: {name: value for name, value in rules if value != getattr(off, name)}
        for preset, rules in PRESETS.items()
    }
    light = {"html": True, "unicode": "NFC", "control": True, "whitespace": True}
    assert switched_on == {
        "none": {},
        "light": light,
        "zh_web": light | {"punctuation": True, "title": True, "urls": True, "emails": True, "identity_numbers": True,
                           "phone_numbers": True, "min_characters": 20, "min_chinese_share": 0.3,
                           "max_symbol_share": 0.3, "max_duplicate_line_share": 0.3, "max_ngram_share": 0.2},
    }  # fmt: skip


def test_a_key_stands_in_place_of_the_presets_rule() -> None:
    rules = CleaningConfig(preset="zh_web", html=False, unicode="none", min_characters=0, max_ngram_share=0.5).rules()
    assert (rules.html, rules.unicode, rules.min_characters, rules.max_ngram_share) == (False, "none", 0, 0.5)
    assert rules.emails
    assert CleaningConfig(html=True).rules() == CleaningRules(html=True)


def test_false_switches_off_what_has_a_number_too() -> None:
    off = CleaningConfig.model_validate({"preset": "zh_web"} | dict.fromkeys(CleaningRules.model_fields, False))
    assert off.rules() == CleaningRules()


@pytest.mark.parametrize("key", ["unicode", "min_characters", "max_ngram_share"])
def test_true_says_nothing_where_a_value_is_needed(key: str, tmp_path: Path) -> None:
    path = tmp_path / "cleaning.yaml"
    path.write_text(f"{key}: true\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"`{key}`: has no value that `true` could mean"):
        load_config(CleaningConfig, path)


def test_an_unset_rule_is_no_part_of_the_identity() -> None:
    assert identity(CleaningConfig()) == {"preset": "none"}
    assert identity(CleaningConfig(preset="light", html=False, min_characters=0)) == {
        "preset": "light",
        "html": False,
        "min_characters": 0,
    }


# ── blocked words ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("\ufeff赌场\r\n\n 六合彩 \n代\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("澳门赌场上线", "blocked_word"),
        ("买六合彩", "blocked_word"),
        ("六合 彩和赌 场", "kept"),
        ("代", "blocked_word"),
        ("天下", "kept"),
    ],
)
def test_blocked_words(words: Path, text: str, expected: str) -> None:
    assert reason(text, blocked_words=str(words)) == expected


def test_the_first_blocked_word_is_named(words: Path) -> None:
    result = clean("六合彩赌场", blocked_words=str(words))
    assert not isinstance(result, Document)
    assert result.detail == "it holds '六合彩'"


def test_the_words_are_part_of_the_identity_and_their_place_is_not(words: Path, tmp_path: Path) -> None:
    first = CleaningConfig(blocked_words=str(words))
    assert first.blocked_words_sha256 == hashlib.sha256(words.read_bytes()).hexdigest()
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_bytes(words.read_bytes())
    assert fingerprint(CleaningConfig(blocked_words=str(elsewhere))) == fingerprint(first)
    elsewhere.write_text("别的词\n", encoding="utf-8")
    assert fingerprint(CleaningConfig(blocked_words=str(elsewhere))) != fingerprint(first)


def test_a_missing_file_of_words_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "corpus.yaml"
    path.write_text("preset: light\nblocked_words: nowhere.txt\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"blocked_words: nowhere\.txt: No such file"):
        load_config(CleaningConfig, path)


def test_a_stored_config_is_read_without_the_file_and_used_only_with_it(words: Path) -> None:
    stored = CleaningConfig(blocked_words=str(words)).model_dump_json()
    words.unlink()
    config = CleaningConfig.model_validate_json(stored)
    assert "blocked_words_sha256" in dump_yaml(config)
    with pytest.raises(ConfigError, match="No such file"):
        build_cleaner(config)


def test_words_that_have_changed_since_are_refused(words: Path) -> None:
    config = CleaningConfig(blocked_words=str(words))
    words.write_text("别的词\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="has changed since"):
        build_cleaner(config)


@pytest.mark.parametrize(
    ("data", "message"), [(b" \n\r\n", "holds no word"), ("词\n".encode("gb18030"), "byte 0: no UTF-8")]
)
def test_a_useless_file_of_words_is_refused(words: Path, data: bytes, message: str) -> None:
    words.write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        build_cleaner(CleaningConfig(blocked_words=str(words)))


# ── optional libraries ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("module", "keys"), [("opencc", {"simplify": True}), ("py3langid", {"languages": ["zh"]})])
def test_a_missing_library_is_named_with_its_extra(module: str, keys: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"needs the package {module}") as caught:
        build_cleaner(CleaningConfig(**keys))
    assert "lmbatch[zh]" in (caught.value.remedy or "")


def test_the_presets_need_no_optional_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("opencc", "py3langid"):
        monkeypatch.setitem(sys.modules, module, None)
    for preset in PRESETS:
        assert isinstance(
            build_cleaner(CleaningConfig(preset=preset, min_characters=0))(document("天下大势")), Document
        )
