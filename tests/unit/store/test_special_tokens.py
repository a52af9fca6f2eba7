"""The special tokens of a tokenizer, from its two files."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lmbatch.errors import TokenizerError
from lmbatch.store import SpecialTokens, parse_special_tokens

ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def files(tokens: tuple[str, ...], settings: dict[str, Any] | None) -> tuple[bytes, bytes | None]:
    added = [{"id": number, "content": token, "special": True} for number, token in enumerate(tokens)]
    added.append({"id": 99, "content": "<ordinary>", "special": False})
    tokenizer = json.dumps({"added_tokens": added, "model": {}}).encode()
    return tokenizer, None if settings is None else json.dumps(settings).encode()


def parse(tokens: tuple[str, ...] = ROBERTA, settings: dict[str, Any] | None = None, eod_id: int = 2) -> SpecialTokens:
    return parse_special_tokens(*files(tokens, settings), eod_id=eod_id, size=100, where="store/tokenizer")


def test_roles_are_found_by_spelling_where_no_config_names_them():
    found = parse()
    assert (found.first, found.pad, found.mask) == ("<s>", "<pad>", "<mask>")
    assert (found.first_id, found.pad_id, found.last_id, found.mask_id) == (0, 1, 2, 4)
    assert found.ids == (0, 1, 2, 3, 4)
    bert = parse(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), eod_id=3)
    assert (bert.first_id, bert.pad_id, bert.last_id, bert.mask_id) == (2, 0, 3, 4)


def test_the_config_goes_before_the_spelling_in_either_form():
    tokens = (*ROBERTA, "<blank>", "<begin>")
    settings = {"mask_token": {"content": "<blank>", "lstrip": True}, "cls_token": "<begin>", "bos_token": "<s>"}
    found = parse(tokens, settings)
    assert (found.mask, found.mask_id, found.first_id) == ("<blank>", 5, 6)


def test_eod_is_special_even_if_the_tokenizer_does_not_say_so():
    assert parse(eod_id=50).ids == (0, 1, 2, 3, 4, 50)


@pytest.mark.parametrize(
    ("tokens", "settings", "what"),
    [
        (("<s>", "<pad>", "</s>"), None, "has none for: mask"),
        (("<|endoftext|>",), None, "has none for: first, mask, pad"),
        (("<s>", "</s>", "<mask>"), None, "has none for: pad"),
        (ROBERTA, {"pad_token": "</s>"}, "one token for several of them, or for EOD"),
        (ROBERTA, {"pad_token": "<mask>"}, "one token for several of them"),
        (ROBERTA, {"mask_token": "<s>"}, "one token for several of them"),
    ],
)
def test_a_tokenizer_that_lacks_a_token_of_its_own_is_refused(tokens, settings, what):
    with pytest.raises(TokenizerError, match=rf"store/tokenizer: .*{what}"):
        parse(tokens, settings)


def test_what_is_no_tokenizer_is_refused():
    for data in (b"{", b"[]", b'{"added_tokens": [{}]}'):
        with pytest.raises(TokenizerError, match="store/tokenizer: no tokenizer"):
            parse_special_tokens(data, None, eod_id=2, size=9, where="store/tokenizer")
