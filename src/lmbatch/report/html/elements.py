"""HTML from values. A plain string is text and is escaped; only what these functions made counts as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

# What a reader would not see, or what would turn the text around: shown by its code point.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff"
    "\uffa0\ufff9-\ufffc]"
)
_VOID = frozenset({"meta", "link"})  # of HTML; an element of SVG must be closed

Child = object  # Html, or text, or a number


class Html(str):
    """A string that is HTML already."""

    __slots__ = ()


def text(value: object) -> Html:
    """A value as text: escaped, with invisible characters made visible."""
    if isinstance(value, Html):
        return value
    return Html(_INVISIBLE.sub(_code_point, html.escape(str(value))))


def _code_point(found: re.Match[str]) -> str:
    return f'<span class="code">U+{ord(found[0]):04X}</span>'


def element(tag: str, *children: Child, **attributes: object) -> Html:
    """``<tag …>children</tag>``. Of attributes, None and False are left out, True stands alone; ``class_`` and
    ``aria_label`` become ``class`` and ``aria-label``.
    """
    opening = "".join([f"<{tag}", *map(_attribute, attributes.items()), ">"])
    if tag in _VOID:
        return Html(opening)
    return Html(f"{opening}{join(children)}</{tag}>")


def _attribute(item: tuple[str, object]) -> str:
    name, value = item[0].rstrip("_").replace("_", "-"), item[1]
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'


def join(children: Iterable[Child]) -> Html:
    """One after the other."""
    return Html("".join(text(child) for child in children))


def table(
    caption: str,
    headings: Sequence[Child],
    rows: Iterable[Sequence[Child]],
    *,
    numbers: Sequence[int] = (),
    bars: Sequence[int] = (),
    tight: bool = False,
) -> Html:
    """A table whose first column heads its rows; ``numbers`` are the columns that hold figures, ``bars`` those of bars.
    ``tight``: the first column is as narrow as it can be.

    The caption is not shown: it is for those who do not see the heading above.
    """
    classes = dict.fromkeys(numbers, "number") | dict.fromkeys(bars, "bars")
    head = [element("th", cell, scope="col", class_=classes.get(i)) for i, cell in enumerate(headings)]
    body = []
    for row in rows:
        first = element("th", row[0], scope="row")
        cells = [element("td", cell, class_=classes.get(i)) for i, cell in enumerate(row[1:], start=1)]
        body.append(element("tr", first, *cells))
    inner = element(
        "table",
        element("caption", caption, class_="unseen"),
        element("thead", element("tr", *head)),
        element("tbody", *body),
        class_="tight" if tight else None,
    )
    # A wide table is scrolled by itself, by keyboard too, so that the page never is.
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def section(anchor: str, title: str, *children: Child) -> Html:
    """A part of the page under a heading."""
    heading = element("h2", title, id=anchor)
    return element("section", heading, *children, aria_labelledby=anchor)
