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


def tidy_text(text: str, tokenizer_kind: str) -> str:
    """Remove the spaces that WordPiece decoding leaves between CJK characters and at their punctuation.

    ``今 天 ， AI 来 了`` → ``今天，AI 来了``. Spaces between other words stay. ``tokenizer_kind`` is the model's class
    in `tokenizers` (WordPiece, BPE, Unigram, WordLevel); texts of every kind but WordPiece stay as they are.
    """
    if tokenizer_kind != "WordPiece":
        return text
    return _BETWEEN.sub("", text)
