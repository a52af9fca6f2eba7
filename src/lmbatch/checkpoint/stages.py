"""The points of a save at which a process may die; fault tests stop there.

A save calls :func:`reached` on its way. It does nothing, unless a test has put another ``on_stage`` into this module.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum


class Stage(Enum):
    """In the order in which a save passes them."""

    BEFORE_PAYLOAD = "before-payload"  # the attempt's folder is there, and empty
    MID_PAYLOAD = "mid-payload"  # one file is hashed and on the disk, the others may not be
    AFTER_PAYLOAD = "after-payload"  # every file and folder is on the disk
    BEFORE_RECEIPT = "before-receipt"  # the receipt is made, not published
    AFTER_RECEIPT = "after-receipt"  # committed
    RECEIPT_DELETED = "receipt-deleted"  # retention: an old receipt is gone, its payload is not


def _nothing(stage: Stage) -> None:
    """Production's hook."""


on_stage: Callable[[Stage], None] = _nothing


def reached(stage: Stage) -> None:
    """Tell the hook."""
    on_stage(stage)
