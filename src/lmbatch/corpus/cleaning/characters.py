"""Transformations of single characters: normal form, invisible characters, white space, width of punctuation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

Transformation = Callable[[str], str]

HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"

# C0 (not tab and the line ends), DEL, C1 (not NEL, a line end), surrogates, noncharacters; then what has no shape of
# its own: soft hyphen, zero-width space and non-joiner, directional marks, word joiner, byte order mark, Hangul and
# Khmer fillers, interlinear annotation, object replacement, the replacement character, tags.
_INVISIBLE = (
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
    "\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffd\U000e0000-\U000e007f"
)
# U+200D joins emoji (👩‍🚀) and is dirt anywhere else in Chinese text.
_EMOJI = "\u2600-\u27bf\ufe0f\U0001f000-\U0001faff"
_CONTROL = re.compile(f"[{_INVISIBLE}]+|(?<![{_EMOJI}])\u200d+|\u200d+(?![{_EMOJI}])")

# Those of the above that `str.isprintable` takes for visible, and the fillers that count as letters.
_SEEM_PRINTABLE = ("\u115f", "\u1160", "\u17b4", "\u17b5", "\u3164", "\uffa0", "\ufffc", "\ufffd")

_COMMON_WHITESPACE = (("\r\n", "\n"), ("\t", " "), ("\xa0", " "), ("\u3000", " "))
_RARE_WHITESPACE = (
    *((end, "\n") for end in "\r\x0b\x0c\x85\u2028\u2029"),
    *((space, " ") for space in "\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f"),
)
_BLANK_LINES = re.compile("\n{3,}")

_FULL_WIDTH = str.maketrans(",;:?!", "，；：？！")
_NARROW = re.compile(f"[,;:?!](?<=[{HAN}].) ?(?=[{HAN}])")


def normalizer(form: Literal["NFC", "NFKC"]) -> Transformation:
    """To a normal form of Unicode (UAX 15), which most texts are in already."""

    def normalize(text: str) -> str:
        return text if unicodedata.is_normalized(form, text) else unicodedata.normalize(form, text)

    return normalize


def without_invisible(text: str) -> str:
    """Control, zero-width, bidirectional and other invisible characters removed."""
    # The usual text is passed at the speed of three scans in C, several times that of the pattern.
    if text.replace("\n", "").replace("\u3000", "").isprintable() and not any(c in text for c in _SEEM_PRINTABLE):
        return text
    return _CONTROL.sub("", text)


def plain_whitespace(text: str) -> str:
    r"""Line ends as \n, single spaces, none at the ends of a line or the text, at most one blank line in a row."""
    for odd in (_COMMON_WHITESPACE, _RARE_WHITESPACE):
        if text.replace("\n", "").isprintable():  # then it has no other white space than the space
            break
        for character, plain in odd:
            text = text.replace(character, plain)
    while "  " in text:
        text = text.replace("  ", " ")
    text = text.replace(" \n", "\n").replace("\n ", "\n")
    return (_BLANK_LINES.sub("\n\n", text) if "\n\n\n" in text else text).strip(" \n")


def full_width_punctuation(text: str) -> str:
    """ASCII , ; : ? ! between two Chinese characters made full-width; a space behind it goes."""
    return _NARROW.sub(lambda found: found[0][0].translate(_FULL_WIDTH), text)
