"""What is done to a text before it is tokenized: the presets, and one key for every rule.

A preset is a full set of rules; a key of the config that is set (true, false, a number) stands in place of the
preset's. Changing a preset here changes the bytes of every corpus that names it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from lmbatch.config.base import Section, added, operational
from lmbatch.errors import ConfigError

Preset = Literal["none", "light", "zh_web"]
NormalForm = Literal["none", "NFC", "NFKC"]


class CleaningRules(Section):
    """Every rule, decided; the defaults switch everything off."""

    html: bool = False
    unicode: NormalForm = "none"
    control: bool = False
    whitespace: bool = False
    simplify: bool = False
    punctuation: bool = False
    urls: bool = False
    emails: bool = False
    identity_numbers: bool = False
    phone_numbers: bool = False
    title: bool = False
    min_characters: int = 0
    max_characters: int = 0
    min_chinese_share: float = 0.0
    max_symbol_share: float = 1.0
    max_duplicate_line_share: float = 1.0
    max_ngram_share: float = 1.0


_LIGHT = CleaningRules(html=True, unicode="NFC", control=True, whitespace=True)

PRESETS: dict[Preset, CleaningRules] = {
    "none": CleaningRules(),
    "light": _LIGHT,
    "zh_web": _LIGHT.model_copy(
        update={
            "punctuation": True,
            "title": True,
            "urls": True,
            "emails": True,
            "identity_numbers": True,
            "phone_numbers": True,
            "min_characters": 20,
            "min_chinese_share": 0.3,
            "max_symbol_share": 0.3,
            "max_duplicate_line_share": 0.3,
            "max_ngram_share": 0.2,
        }
    ),
}


def _rule(name: str, meaning: str, **kwargs: Any) -> Any:
    """The key of a rule; its description ends with what every preset says."""
    said = ", ".join(f"{preset}: {_word(getattr(rules, name))}" for preset, rules in PRESETS.items())
    return added(None, description=f"{meaning} Unset: what the preset says ({said}).", **kwargs)


def _word(value: Any) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


class CleaningConfig(Section):
    """What is done to a text before it is tokenized; rules run in the order of their keys."""

    preset: Preset = Field("none", description="`none` leaves every text as it is; each key below overrides its rule.")
    html: bool | None = _rule(
        "html",
        "HTML remains: tags of HTML elements, comments, scripts and style sheets go (a block's tag becomes a line "
        "end), entities become characters.",
    )
    unicode: NormalForm | None = _rule(
        "unicode",
        "Unicode normal form. NFC joins letters and their accents and leaves full-width ，：（） alone; NFKC makes "
        "them ASCII, ① 1 and ㈱ (株), so that a text may grow up to 18-fold.",
    )
    control: bool | None = _rule(
        "control",
        "Control, zero-width, bidirectional and other invisible characters go (tab, line ends and the joiner within an "
        "emoji stay).",
    )
    whitespace: bool | None = _rule(
        "whitespace",
        "Every line end becomes \\n, a run of other white space (U+3000 too) one space, none of it at a line's ends, "
        "at most one blank line in a row.",
    )
    simplify: bool | None = _rule(
        "simplify", "Traditional characters become Simplified (OpenCC t2s); needs the extra `zh`."
    )
    punctuation: bool | None = _rule(
        "punctuation", "ASCII , ; : ? ! between two Chinese characters become full-width (two bytes more each)."
    )
    urls: bool | None = _rule("urls", "A URL (http, https, ftp, www.) becomes [网址].")
    emails: bool | None = _rule("emails", "An e-mail address becomes [邮箱].")
    identity_numbers: bool | None = _rule(
        "identity_numbers",
        "An 18-digit identity-card number whose date and checksum are right (GB 11643-1999) becomes [身份证号].",
    )
    phone_numbers: bool | None = _rule(
        "phone_numbers", "A Chinese mobile, land-line (with area code) or 400/800 number becomes [电话]."
    )
    title: bool | None = _rule(
        "title",
        "A title that is repeated at the head of the text goes, where white space, a punctuation mark or itself "
        "follows; `title` must be one of corpus.metadata_fields.",
    )
    min_characters: int | None = _rule(
        "min_characters", "A shorter text is dropped as `too_short`; 0 = no limit.", ge=0
    )
    max_characters: int | None = _rule("max_characters", "A longer text is dropped as `too_long`; 0 = no limit.", ge=0)
    min_chinese_share: float | None = _rule(
        "min_chinese_share",
        "Least share of Han characters among those that are no white space; below it: `too_little_chinese`.",
        ge=0.0,
        le=1.0,
    )
    max_symbol_share: float | None = _rule(
        "max_symbol_share",
        "Greatest share of symbols (neither letter, digit, white space nor common punctuation) among those that are no "
        "white space; above it: `too_many_symbols`.",
        ge=0.0,
        le=1.0,
    )
    max_duplicate_line_share: float | None = _rule(
        "max_duplicate_line_share",
        "Greatest share of lines that are equal to an earlier one (Gopher, table A1: 0.3); above it: `repeated_lines`.",
        ge=0.0,
        le=1.0,
    )
    max_ngram_share: float | None = _rule(
        "max_ngram_share",
        "Greatest share of a text that its most frequent run of 4 characters makes up; above it: `repeated_ngrams`.",
        ge=0.0,
        le=1.0,
    )
    blocked_words: str | None = operational(
        None,
        description="A UTF-8 file with one word a line; a text that holds one, spelt exactly so, is dropped as "
        "`blocked_word`. No preset names one.",
    )
    blocked_words_sha256: str | None = added(
        None,
        description="The sha256 of that file, filled in when the config is read; a file that has changed since is "
        "refused.",
        pattern=r"^[0-9a-f]{64}$",
    )
    languages: tuple[str, ...] | None = added(
        None,
        description="ISO 639-1 codes to keep, such as [zh]; other texts are dropped as `other_language` (py3langid on "
        "the first 1,000 characters; needs the extra `zh`). No preset switches it on.",
    )

    def rules(self) -> CleaningRules:
        """The preset's rules with this config's own in their place."""
        own = {name: getattr(self, name) for name in CleaningRules.model_fields}
        return PRESETS[self.preset].model_copy(update={k: value for k, value in own.items() if value is not None})

    @field_validator(*(name for name, rule in CleaningRules() if not isinstance(rule, bool)), mode="before")
    @classmethod
    def _false_is_off(cls, value: Any, info: ValidationInfo) -> Any:
        """`false` switches every rule off, those with a number too, where it would be read as a limit of 0."""
        if not isinstance(value, bool) or info.field_name is None:
            return value
        if value:
            raise ValueError("has no value that `true` could mean; give one, or `false` to switch it off")
        return CleaningRules.model_fields[info.field_name].default

    @model_validator(mode="before")
    @classmethod
    def _pin_blocked_words(cls, data: Any) -> Any:
        """Put the file's sha256 into the config, and so into its fingerprint. Raises ConfigError without the file."""
        # A stored plan has it already: a worker or `lmbatch status` need not see the file to read the plan.
        if not isinstance(data, dict) or data.get("blocked_words_sha256"):
            return data
        path = data.get("blocked_words")
        return {**data, "blocked_words_sha256": _sha256(path)} if isinstance(path, str) else data


def _sha256(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(
            f"cleaning.blocked_words: {path}: {error.strerror or error}",
            remedy="give the path of a text file with one word a line, or leave the key out",
        ) from error
