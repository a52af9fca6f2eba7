"""What decoding does to white space, and how it is undone."""

from __future__ import annotations

import re

# Ideographs (with extensions and compatibility forms), kana and bopomofo. Not Hangul: Korean writes spaces.
_LETTERS = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u303b\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# CJK brackets and full-width signs carry their own space.
_WIDE_SIGNS = "\u3001-\u3004\u3008-\u3020\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
# Dash, quotes and ellipsis serve Latin text as well: only their CJK neighbours tell.
_SHARED_SIGNS = "\u2014\u2018-\u201d\u2026"
_BETWEEN = re.compile(
    f"(?<=[{_LETTERS}]) +(?=[{_LETTERS}{_SHARED_SIGNS}])"
    f"|(?<=[{_SHARED_SIGNS}]) +(?=[{_LETTERS}])"
    f"|(?<=[{_WIDE_SIGNS}]) +"
    f"| +(?=[{_WIDE_SIGNS}])"
)
# A word vocabulary, whose words have a space between any two of them; no class of `tokenizers`.
WORDS = "Words"
# A letter or digit of a script that writes spaces.
_SPACED = f"[^\\W_{_LETTERS}]"
# Kept between two of them, and behind a mark of a sentence that stands between two letters ("Hello, world").
_BETWEEN_WORDS = re.compile(f"(?:(?<={_SPACED})( )(?={_SPACED}))|(?:(?<={_SPACED} [,;:!?])( )(?=(?![0-9]){_SPACED}))| ")


def tidy_text(text: str, tokenizer_kind: str) -> str:
    """Remove the spaces that WordPiece decoding leaves between CJK characters and at their punctuation.

    ``今 天 ， AI 来 了`` → ``今天，AI 来了``. Spaces between other words stay. ``tokenizer_kind`` is the model's class
    in `tokenizers` (WordPiece, BPE, Unigram, WordLevel), or WORDS; texts of other kinds stay as they are.
    """
    if tokenizer_kind == WORDS:
        return join_words(text)
    if tokenizer_kind != "WordPiece":
        return text
    return _BETWEEN.sub("", text)


def join_words(text: str) -> str:
    """Words with a space between any two of them → the text, with spaces around words of scripts that write them only.

    ``今天 天气 ， Hello , big world ! 12 个 月`` → ``今天天气，Hello, big world!12个月``. Segmentation has lost the
    text's own spaces, so this is a rule, no memory: ``1 , 000`` → ``1,000``. A word more at the end changes nothing
    before it.
    """
    return _BETWEEN_WORDS.sub(lambda found: " " if found.lastindex else "", text)
