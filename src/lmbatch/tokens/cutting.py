r"""Where a text may be cut so that its ids do not change.

A cut is allowed only in pipelines whose pre-tokenizer decides every boundary from characters beside it. Between a
letter L (ASCII or U+4E00..U+9FFF) and a sign S (space, newline, or one of the punctuation marks below):

- **BertPreTokenizer** splits at white space and around every punctuation mark, so L | S is a boundary. BertNormalizer
  works character by character (its NFD does not join L with S: neither composes nor is a combining mark). Between two
  ideographs it puts spaces if ``handle_chinese_chars`` is set, so that is a boundary too.
- **ByteLevel with GPT-2's pattern** (Radford et al. 2019) and the later patterns of its family (Qwen2, cl100k, Llama 3)
  end a run of letters at S, no alternative spans L and S, and none looks behind, so matching starts anew at S whatever
  stood before it. NFC, which Qwen2 applies first, does not join L with S either.

Everything else is encoded whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from lmbatch.tokens.parts import parts_of

PIECE_CHARACTERS = 1 << 16
_LETTER = "A-Za-z\u4e00-\u9fff"
_SIGN = re.escape(" \n,.;:!?，。；：！？、")
_AT_SIGNS = re.compile(f"(?<=[{_LETTER}])(?=[{_SIGN}])")
_AT_IDEOGRAPHS = re.compile(f"(?<=[{_LETTER}])(?=[{_SIGN}])|(?<=[\u4e00-\u9fff])(?=[\u4e00-\u9fff])")
# The split patterns of cl100k and Llama 3, and of Qwen2, as their tokenizer.json spell them.
_KNOWN_PATTERNS = frozenset(
    rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    for numbers in (r"\p{N}{1,3}", r"\p{N}")
)


@dataclass(frozen=True, slots=True)
class Cutter:
    """Cuts texts into pieces of about ``size`` characters whose ids, end to end, are the ids of the text."""

    place: re.Pattern[str] | None
    size: int = PIECE_CHARACTERS

    @classmethod
    def of(cls, backend: Tokenizer) -> Cutter:
        """The cutter for a tokenizer; one that never cuts if nothing is known about its pipeline."""
        return cls(_place(parts_of(backend)))

    def pieces(self, text: str) -> Iterator[str]:
        """The text in order, nothing added, nothing lost; at least one piece, an empty text too."""
        start = 0
        while self.place is not None and len(text) - start > self.size:
            found = self.place.search(text, start + self.size)
            if found is None or found.start() >= len(text):
                break
            yield text[start : found.start()]
            start = found.start()
        yield text[start:] if start else text

    def groups(self, texts: Sequence[str], characters: int) -> Iterator[list[tuple[int, str]]]:
        """The pieces of all texts with the numbers of their texts, in order, in groups of about so many characters."""
        group: list[tuple[int, str]] = []
        size = 0
        for number, text in enumerate(texts):
            for piece in self.pieces(text):
                group.append((number, piece))
                size += len(piece)
                if size >= characters:
                    yield group
                    group, size = [], 0
        if group:
            yield group

    @property
    def splits_ideographs(self) -> bool:
        """Is every ideograph of U+4E00..U+9FFF a word by itself, whatever stands beside it?"""
        return self.place is _AT_IDEOGRAPHS


def _place(value: dict[str, Any]) -> re.Pattern[str] | None:
    # An added token that is recognised in text may span a cut, or take white space beside it.
    if any(not token["special"] for token in value["added_tokens"]):
        return None
    if value["model"]["type"] == "WordPiece":
        return _of_bert(value["normalizer"], value["pre_tokenizer"])
    if value["model"]["type"] == "BPE":
        return _AT_SIGNS if _is_known_bpe(value) else None
    return None


def _of_bert(normalizer: dict[str, Any] | None, pre_tokenizer: dict[str, Any] | None) -> re.Pattern[str] | None:
    if (pre_tokenizer or {}).get("type") != "BertPreTokenizer" or (normalizer or {}).get("type") != "BertNormalizer":
        return None
    return _AT_IDEOGRAPHS if (normalizer or {}).get("handle_chinese_chars") else _AT_SIGNS


def _is_known_bpe(value: dict[str, Any]) -> bool:
    if value["normalizer"] not in (None, {"type": "NFC"}) or value["model"].get("dropout"):
        return False
    steps = value["pre_tokenizer"] or {}
    steps = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    byte_level = steps[-1]
    if byte_level.get("type") != "ByteLevel" or byte_level["add_prefix_space"]:
        return False
    if len(steps) == 1:
        return bool(byte_level["use_regex"])
    return len(steps) == 2 and not byte_level["use_regex"] and _is_known_split(steps[0])


def _is_known_split(step: dict[str, Any]) -> bool:
    return (
        step.get("type") == "Split"
        and step["pattern"].get("Regex") in _KNOWN_PATTERNS
        and step["behavior"] in ("Isolated", "Removed")
        and bool(step["invert"]) == (step["behavior"] == "Removed")
    )
