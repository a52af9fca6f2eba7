"""What lies in a run folder or a mirror, found out from receipts and sha256 alone."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Set
from dataclasses import dataclass

from lmbatch.errors import ObjectNotFoundError
from lmbatch.store import Store

_RECEIPT = re.compile(r"checkpoints/step-(\d{8})/receipt\.json")
FORMAT = 1


@dataclass(frozen=True)
class Survey:
    """``valid``: steps whose every byte is there and that nobody has damaged. ``torn``: what is wrong with receipts
    that nobody has damaged. ``damaged``: steps that somebody has."""

    valid: frozenset[int]
    damaged: frozenset[int]
    torn: tuple[str, ...]


def survey(store: Store, damaged_keys: Set[str]) -> Survey:
    """Look at every receipt and every file that it names."""
    valid, damaged, torn = set(), set(), []
    for key, step in receipts(store):
        problems = _problems(store, key)
        if key in damaged_keys or any(name.startswith(key.removesuffix("receipt.json")) for name in damaged_keys):
            damaged.add(step)
        elif problems:
            torn += problems
        else:
            valid.add(step)
    return Survey(frozenset(valid), frozenset(damaged), tuple(torn))


def receipts(store: Store) -> list[tuple[str, int]]:
    """Key and step of every receipt, in the order of the steps."""
    found = [_RECEIPT.fullmatch(info.key) for info in store.list("checkpoints/")]
    return sorted(((match[0], int(match[1])) for match in found if match), key=lambda pair: pair[1])


def payload(store: Store, receipt: str) -> dict[str, str]:
    """Key of every file that a receipt names, by its sha256's words."""
    return {file["key"]: file["sha256"] for file in json.loads(store.read(receipt))["files"]}


def by_name(files: dict[str, str]) -> dict[str, str]:
    """The same by the names alone, which two runs have in common."""
    return {key.split("/", 3)[3]: digest for key, digest in files.items()}


def _problems(store: Store, receipt: str) -> list[str]:
    try:
        files = payload(store, receipt)
    except (ValueError, KeyError, TypeError) as error:
        return [f"{store.uri}/{receipt}: {error!r}"]
    found = []
    for key, digest in files.items():
        try:
            if hashlib.sha256(store.read(key)).hexdigest() != digest:
                found.append(f"{store.uri}/{key}: is not what its receipt says")
        except ObjectNotFoundError:
            found.append(f"{store.uri}/{key}: is missing, and its receipt is there")
    return found
