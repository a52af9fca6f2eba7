"""Pins: a small object beside a checkpoint's receipt that keeps every retention away from it.

It is no part of the receipt, which names bytes and is never changed.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from lmbatch.checkpoint.layout import step_folder
from lmbatch.store import Store

PIN = "pinned.json"


def pin_key(step: int) -> str:
    """Key of the pin of a step."""
    return f"{step_folder(step)}/{PIN}"


def pin(store: Store, step: int, note: str = "") -> None:
    """Keep a step until it is unpinned; pinning again replaces the note. Raises StoreError."""
    facts = {"pinned_at": datetime.now(UTC).isoformat(timespec="seconds"), "note": note}
    store.put(pin_key(step), json.dumps(facts, ensure_ascii=False).encode() + b"\n")


def unpin(store: Store, step: int) -> None:
    """Take the pin away; no error if there is none. Raises StoreError."""
    store.delete(pin_key(step))


def is_pinned(store: Store, step: int) -> bool:
    """Whether a step has a pin, whatever is in it."""
    return store.exists(pin_key(step))
