"""Which keys are allowed: those that every store can hold and that stay below the root."""

from __future__ import annotations

import re

from lmbatch.errors import StoreError
from lmbatch.store.files import TEMPORARY_PREFIX

_LONGEST_KEY = 1024  # bytes of UTF-8, S3's limit
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")
# What nearly all keys are like is looked at in one step: nothing that is found wrong below is of this form.
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")
_LONGEST_NAME = 255  # bytes of UTF-8, the limit of a file name


def check_key(key: str) -> str:
    """The key itself. Raises StoreError for one that some store could not hold, or that leaves the root."""
    problem = _problem(key)
    if problem:
        raise StoreError(f"not a key for an object: {key!r}: {problem}", remedy="use names separated by single slashes")
    return key


def check_prefix(prefix: str) -> str:
    """The same for the beginning of a key: empty, or with a slash at its end, is allowed here."""
    if prefix.removesuffix("/"):
        check_key(prefix.removesuffix("/"))
    elif prefix:
        raise StoreError("not a prefix of keys: '/'", remedy="keys have no leading slash; the empty prefix is all")
    return prefix


def check_range(key: str, start: int, end: int | None) -> None:
    """Raises StoreError for positions before the beginning."""
    if start < 0 or (end is not None and end < 0):
        raise StoreError(f"{key}: bytes {start} to {end} cannot be read", remedy="positions count from 0")


def _problem(key: str) -> str | None:
    if len(key) <= _LONGEST_NAME and _PLAIN.fullmatch(key):
        return None
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    names = key.split("/")
    if not key:
        return "it is empty"
    if key.startswith("/"):
        return "it begins with a slash"
    if any(name in ("", ".", "..") for name in names):
        return 'one of its names is empty, "." or ".."'
    if _FORBIDDEN.search(key):
        return "it holds a control character or a backslash"
    if any(name.startswith(TEMPORARY_PREFIX) for name in names):
        return f"{TEMPORARY_PREFIX}… is kept for unfinished files"
    if length > _LONGEST_KEY or any(len(name.encode()) > _LONGEST_NAME for name in names):
        return f"it is longer than {_LONGEST_KEY} bytes, or a name in it than {_LONGEST_NAME}"
    return None
