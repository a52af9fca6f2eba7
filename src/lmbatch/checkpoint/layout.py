"""Where a checkpoint's objects lie. Keys are relative to the store's root (normally the run folder)."""

from __future__ import annotations

import re
import secrets

PREFIX = "checkpoints"
RECEIPT = "receipt.json"
_STEP = re.compile(r"^step-(\d{8,})$")


def step_folder(step: int) -> str:
    """``40`` → ``checkpoints/step-00000040``."""
    return f"{PREFIX}/step-{step:08d}"


def receipt_key(step: int) -> str:
    """Key of the receipt that commits a step."""
    return f"{step_folder(step)}/{RECEIPT}"


def payload_folder(step: int, attempt: str) -> str:
    """Folder that one attempt at saving a step writes into, and no other attempt ever."""
    return f"{step_folder(step)}/{attempt}"


def step_of(name: str) -> int | None:
    """``step-00000040`` → 40; None for any other name."""
    match = _STEP.match(name)
    return int(match[1]) if match else None


def new_attempt() -> str:
    """A name that no other attempt has; job ids and pids repeat, random bits do not."""
    return f"attempt-{secrets.token_hex(6)}"


def is_attempt(name: str) -> bool:
    """Is this the name of an attempt's folder?"""
    return name.startswith("attempt-") and not name.endswith(".lock")
