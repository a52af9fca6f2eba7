"""HTML remains: tags, comments, scripts and style sheets removed, entities decoded.

Only tags of HTML's own elements count, so that ``a < b``, ``<你好>`` and ``vector<int>`` stay. One call takes away one
layer (``&amp;lt;`` becomes ``&lt;``); the cleaner calls it until nothing changes.
"""

from __future__ import annotations

import re
from html.entities import html5

_BLOCKS = (
    "address|article|aside|blockquote|body|br|center|dd|div|dl|dt|fieldset|figcaption|figure|footer|form|h[1-6]|head|"
    "header|hr|html|legend|li|main|nav|ol|option|p|pre|section|table|tbody|tfoot|thead|title|tr|ul"
)
_INLINE = (
    "a|abbr|acronym|audio|b|base|big|button|canvas|caption|cite|code|col|colgroup|del|em|embed|font|i|iframe|img|input|"
    "ins|kbd|label|link|mark|meta|noscript|object|param|q|s|samp|select|small|source|span|strike|strong|sub|sup|"
    "textarea|tt|u|var|video|wbr"
)
# Up to the next angle bracket and no further, so that a stray one costs no more than the text behind it.
_TAG = re.compile(
    r"<(?:!--[^<>]*--|!doctype\b[^<>]*|(?P<closing>/?)"
    rf"(?:(?P<block>{_BLOCKS})|(?P<cell>t[dh])|(?P<hidden>script|style)|{_INLINE})(?=[\s/>])[^<>]*)>",
    re.IGNORECASE,
)
_ENTITY = re.compile(r"&(?:#([0-9]{1,7})|#[xX]([0-9a-fA-F]{1,6})|([A-Za-z][A-Za-z0-9]{1,31}));")


def without_markup(text: str) -> str:
    """One layer of tags removed and one of entities decoded."""
    if "<" in text:
        text = _without_tags(text)
    return _ENTITY.sub(_character, text) if "&" in text else text


def _without_tags(text: str) -> str:
    parts: list[str] = []
    end, hidden, hidden_from = 0, "", 0
    for tag in _TAG.finditer(text):
        parts += (text[end : tag.start()], "\n" if tag["block"] else " " if tag["cell"] else "")
        end = tag.end()
        name = (tag["hidden"] or "").lower()
        if name and not hidden and not tag["closing"]:
            hidden, hidden_from = name, len(parts)
        elif name and name == hidden and tag["closing"]:
            del parts[hidden_from:]
            hidden = ""
    return "".join([*parts, text[end:]]) if parts else text


def _character(entity: re.Match[str]) -> str:
    """What an entity stands for; one that HTML does not know stays, one for a control character goes."""
    decimal, hexadecimal, name = entity.groups()
    if name is not None:
        return html5.get(f"{name};", entity[0])
    code = int(decimal) if decimal is not None else int(hexadecimal, 16)
    # HTML (13.2.5.80) reads 128 to 159 as Windows-1252, which is what authors meant.
    if 0x80 <= code <= 0x9F:
        return bytes([code]).decode("cp1252", "ignore")
    printable = code in (9, 10) or (code > 0x1F and not 0xD800 <= code <= 0xDFFF and code <= 0x10FFFF)
    return chr(code) if printable and code != 0x7F else ""
