"""Do two tokenizers give the same ids? Asked before weights that were made with the one read shards of the other."""

from __future__ import annotations

from collections.abc import Mapping

from lmbatch.tokens.engines.adversarial import adversarial_texts
from lmbatch.tokens.load import TextTokenizer

_SHOWN = 40


def difference(one: TextTokenizer, other: TextTokenizer) -> str | None:
    """The first thing in which they differ, in words ("the first", "the second"); None if they are the same.

    Vocabularies are compared entry by entry. Where the files differ in anything else, both encode a fixed set of
    hostile texts: another normal form or another way to cut words shows there.
    """
    if one.fingerprint == other.fingerprint:
        return None
    return differing_entry(_vocabulary(one), _vocabulary(other)) or _segmentation(one, other) or _encoding(one, other)


def differing_entry(one: Mapping[str, int], other: Mapping[str, int]) -> str | None:
    """The first id that stands for another token in two vocabularies (token → id), in words; None if there is none."""
    first, second = ({number: token for token, number in entries.items()} for entries in (one, other))
    for number in sorted(first.keys() | second.keys()):
        if first.get(number) != second.get(number):
            return (
                f"id {number} is {_shown(first.get(number))} in the first, {_shown(second.get(number))} in the second"
            )
    return None


def _vocabulary(tokenizer: TextTokenizer) -> Mapping[str, int]:
    entries: Mapping[str, int] = tokenizer.backend.get_vocab(with_added_tokens=True)
    return entries


def _shown(token: str | None) -> str:
    return "nothing" if token is None else repr(token)


def _segmentation(one: TextTokenizer, other: TextTokenizer) -> str | None:
    if one.segmentation == other.segmentation:
        return None
    return f"texts are segmented by {one.segmentation} for the first, by {other.segmentation} for the second"


def _encoding(one: TextTokenizer, other: TextTokenizer) -> str | None:
    added = [token.content for token in one.backend.get_added_tokens_decoder().values()]
    texts = adversarial_texts(added)
    pairs = (tokenizer.backend.encode_batch(texts, add_special_tokens=False) for tokenizer in (one, other))
    for text, left, right in zip(texts, *pairs, strict=True):
        if left.ids != right.ids:
            return f"the text {text[:_SHOWN]!r} becomes {left.ids[:8]} in the first, {right.ids[:8]} in the second"
    return None
