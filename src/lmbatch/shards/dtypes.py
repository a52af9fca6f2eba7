"""The two widths of a token on disk, and the check that an id fits one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from lmbatch.errors import ShardError, VocabularyError

DtypeName = Literal["uint16", "int32"]
TokenArray = np.ndarray[tuple[int], np.dtype[Any]]

DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType({"uint16": np.dtype("<u2"), "int32": np.dtype("<i4")})
_UNSIGNED = {name: np.dtype(dtype.str.replace("i", "u")) for name, dtype in DTYPES.items()}
_LARGEST = {name: int(np.iinfo(dtype).max) for name, dtype in DTYPES.items()}


def dtype_for(largest_id: int) -> DtypeName:
    """The narrower dtype that holds ids 0…``largest_id``. Raises VocabularyError if none does."""
    if 0 <= largest_id <= np.iinfo(np.uint16).max:
        return "uint16"
    if 0 <= largest_id <= np.iinfo(np.int32).max:
        return "int32"
    raise VocabularyError(
        f"the largest token id is {largest_id}; a shard holds ids from 0 to {np.iinfo(np.int32).max}",
        remedy="the tokenizer folder is damaged, or it is no tokenizer of this kind",
    )


def itemsize_of(dtype: str) -> int:
    """Bytes of one token. Raises ShardError for a dtype that shards do not have."""
    return _known(dtype).itemsize


def as_tokens(ids: Sequence[int] | np.ndarray[Any, Any], dtype: str, document: Callable[[], str] | str) -> TokenArray:
    """``ids`` of one document as a 1-D array of ``dtype``; ``document`` names it in errors.

    Raises ShardError for no ids at all, and VocabularyError for an id that the dtype cannot hold: a cast would
    wrap around and train on another token without a word.
    """
    array = np.asarray(ids)
    if array.ndim != 1 or array.size == 0:
        raise ShardError(
            f"{_name(document)}: token ids of shape {array.shape}; a document is a list of one id or more, EOD at its "
            "end",
            remedy="end every document with EOD before it is appended",
        )
    target, largest = _known(dtype), _LARGEST[dtype]
    if not _fits(array, target, largest):
        _refuse(array.tolist(), dtype, largest, _name(document))
    return _stored(array, dtype)


def tokens_that_fit(ids: np.ndarray[Any, Any], dtype: str) -> TokenArray | None:
    """``ids`` (1-D, some) as an array of ``dtype``; None if one may not fit, which `as_tokens` tells for certain."""
    target = _known(dtype)
    return _stored(ids, dtype) if _fits(ids, target, _LARGEST[dtype]) else None


def _stored(ids: np.ndarray[Any, Any], dtype: str) -> TokenArray:
    # The bytes of an id that fits are the same with and without a sign.
    return ids.view(DTYPES[dtype]) if ids.dtype == _UNSIGNED[dtype] else ids.astype(DTYPES[dtype], copy=False)


def _name(document: Callable[[], str] | str) -> str:
    return document if isinstance(document, str) else document()


def _fits(array: np.ndarray[Any, Any], target: np.dtype[Any], largest: int) -> bool:
    """Are these integers from 0 to ``largest``? Nothing is computed that is known."""
    kind = array.dtype.kind
    if kind == "u":
        return array.dtype == target or bool(np.maximum.reduce(array) <= largest)
    return kind == "i" and bool(np.maximum.reduce(array) <= largest and np.minimum.reduce(array) >= 0)


def _refuse(ids: list[Any], dtype: str, largest: int, document: str) -> None:
    for at, value in enumerate(ids):
        if not isinstance(value, int) or not 0 <= value <= largest:
            raise VocabularyError(
                f"{document}: token {at} has id {value!r}, but shards of dtype {dtype} hold ids from 0 to {largest}",
                remedy="set shards.dtype to int32 (or auto), or use the tokenizer that the plan was made with",
            )


def _known(dtype: str) -> np.dtype[Any]:
    if dtype not in DTYPES:
        raise ShardError(f"no such shard dtype: {dtype!r}", remedy=f"use one of {', '.join(DTYPES)}")
    return DTYPES[dtype]
