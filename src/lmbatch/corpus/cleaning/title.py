"""The title that a crawler repeated at the head of the text."""

from __future__ import annotations

# A comma is not among them: with it a sentence that begins like the title goes on.
_ENDS = frozenset("。：:！!？?—–-_|｜》】」』”…·")


def without_title(text: str, title: str) -> str:
    """The text without the title at its head, however often it stands there.

    It goes only where white space, an ending mark or the title again follows, or the title ends in such a mark: in
    「我的母亲是教师」 the title 我的母亲 is the beginning of a sentence. A text that is nothing but its title stays.
    """
    if not title or not text.startswith(title):
        return text
    start = at = 0
    while text.startswith(title, at):
        at += len(title)
        repeated = text.startswith(title, at)
        if not (repeated or _ends_at(text, at, title)):
            break
        while at < len(text) and _separates(text[at]):
            at += 1
        start = at
    return text[start:] if start < len(text) else text


def _ends_at(text: str, at: int, title: str) -> bool:
    return at >= len(text) or _separates(text[at]) or title[-1] in _ENDS


def _separates(character: str) -> bool:
    return character.isspace() or character in _ENDS
