"""Dirty Chinese text for the tests of cleaning."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from lmbatch.config import CleaningConfig
from lmbatch.corpus import Document, Rejected, build_cleaner

SENTENCE = "话说天下大势，分久必合，合久必分。"
LONG = (
    "为了保护专利权人的合法权益，鼓励发明创造，推动发明创造的应用，提高创新能力，制定本法。"
    "国务院专利行政部门负责管理全国的专利工作。"
)

FRAGMENTS = [
    "<b>", "</b>", "<p class='a'>", "</P>", "<br/>", "<script>", "</script>", "<!--", "-->", "<", ">", "&", ";",
    "amp", "lt", "&lt;", "&amp;", "&nbsp;", "&#8203;", "&#x3c;", "&#0;", "&#133;", "&#13;", "&ThickSpace;", "&nGt;",
    "\u200b", "\u200d", "👩", "🚀", "\ufeff", "\x00", "\x1b", "\x85", "\u2028", "\r", "\n", "\r\n", "\t", " ",
    "\u3000", "\xa0", "\u0338", "e", "\u0301", "\u037e", "\uf900", "ﬁ", "＜", "，", "：", ",", ":", "?", "。", "中",
    "国", "標題", "标题", "13812345678", "138-1234-5678", "-", "11010519491231002X", "0", "1", "010-62345678", "+86",
    "a@b.cn", "@", ".", "http://", "www.", "example.com/x", "[", "]", "电话", "體", "乾",
]  # fmt: skip

dirty = st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join)
anything = st.text(max_size=60) | dirty


def document(text: str, title: str | None = None) -> Document:
    return Document(text, "part.json", 0, "id", {} if title is None else {"title": title})


def clean(text: str, preset: str = "none", *, of_title: str | None = None, **keys: Any) -> Document | Rejected:
    return build_cleaner(CleaningConfig(preset=preset, **keys))(document(text, of_title))


def cleaned(text: str, **keys: Any) -> str:
    """The text after the given rules alone."""
    result = clean(text, **keys)
    assert isinstance(result, Document), result
    return result.text


def reason(text: str, preset: str = "none", **keys: Any) -> str:
    """Why the text is dropped, or "kept"."""
    result = clean(text, preset, **keys)
    if isinstance(result, Document):
        return "kept"
    assert result.dropped
    return result.reason
