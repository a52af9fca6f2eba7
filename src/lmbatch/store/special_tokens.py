"""Which of a tokenizer's entries are special, and what for, from the files that lie beside the shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmbatch.errors import TokenizerError

# Each role's names in tokenizer_config.json, and how BERT's and RoBERTa's tokenizers spell it where none is given.
_ROLES = {
    "first": (("cls_token", "bos_token"), ("[CLS]", "<s>")),
    "pad": (("pad_token",), ("[PAD]", "<pad>")),
    "mask": (("mask_token",), ("[MASK]", "<mask>")),
}


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """What masked language modelling needs: the token before a text, padding and mask, and the ids of all special ones.

    ``size`` counts all entries, ``last_id`` ends a text (EOD).
    """

    first: str
    pad: str
    mask: str
    first_id: int
    last_id: int
    pad_id: int
    mask_id: int
    ids: tuple[int, ...]
    size: int


def parse_special_tokens(
    tokenizer: bytes, settings: bytes | None, *, eod_id: int, size: int, where: str
) -> SpecialTokens:
    """From the bytes of tokenizer.json and, if there is one, tokenizer_config.json.

    Raises TokenizerError, naming ``where`` and the roles, if one of them has no token of its own.
    """
    try:
        entries = json.loads(tokenizer)["added_tokens"]
        special = {str(entry["content"]): int(entry["id"]) for entry in entries if entry["special"]}
        named: Mapping[str, Any] = json.loads(settings) if settings is not None else {}
    except (ValueError, KeyError, TypeError) as error:
        raise TokenizerError(f"{where}: no tokenizer: {error!r}", remedy="run `lmbatch verify` on the store") from error
    found = {role: _find(keys, spellings, named, special) for role, (keys, spellings) in _ROLES.items()}
    tokens: dict[str, str] = {role: token for role, token in found.items() if token is not None}
    ids = {role: special[token] for role, token in tokens.items()}
    missing = sorted(_ROLES.keys() - tokens.keys())
    if missing or not _are_their_own(ids["pad"], ids["mask"], others={ids["first"], eod_id}):
        raise TokenizerError(
            f"{where}: masked language modelling needs a first token, a padding token and a mask token of their own, "
            f"but the tokenizer {_complaint(missing)}",
            remedy="train one with such special_tokens (configs/tokenizers/kant_bpe.yaml), or take BERT's or RoBERTa's",
        )
    every = tuple(sorted({*special.values(), eod_id}))
    return SpecialTokens(
        **tokens, first_id=ids["first"], last_id=eod_id, pad_id=ids["pad"], mask_id=ids["mask"], ids=every, size=size
    )


def _are_their_own(pad: int, mask: int, *, others: set[int]) -> bool:
    """A token that also means something else would be hidden from the model, or by it, where it should be seen."""
    return pad != mask and not {pad, mask} & others


def _complaint(missing: list[str]) -> str:
    return f"has none for: {', '.join(missing)}" if missing else "has one token for several of them, or for EOD"


def _find(
    keys: tuple[str, ...], spellings: tuple[str, ...], named: Mapping[str, Any], special: Mapping[str, int]
) -> str | None:
    given = [named.get(key) for key in keys]
    # Older transformers write an AddedToken as a mapping.
    texts = [token.get("content") if isinstance(token, dict) else token for token in given]
    return next((token for token in (*texts, *spellings) if token in special), None)
