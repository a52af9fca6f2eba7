"""The points of a save, of its upload and of a fetch at which a process may die; fault tests stop there.

Each calls :func:`reached` on its way, in whatever thread it runs. That does nothing, unless a test has
put another ``on_stage`` into this module.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum


class Stage(Enum):
    """In the order in which a save passes them, then its upload, then the fetch of a copy."""

    BEFORE_PAYLOAD = "before-payload"  # the attempt's folder is there, and empty
    MID_PAYLOAD = "mid-payload"  # one file is hashed and on the disk, the others may not be
    AFTER_PAYLOAD = "after-payload"  # every file and folder is on the disk
    BEFORE_RECEIPT = "before-receipt"  # the receipt is made, not published
    AFTER_RECEIPT = "after-receipt"  # committed
    RECEIPT_DELETED = "receipt-deleted"  # retention: an old receipt is gone, its payload is not
    BEFORE_UPLOAD = "before-upload"  # nothing of the step is in the mirror yet
    MID_UPLOAD = "mid-upload"  # one file of the payload is in the mirror, the others are not
    AFTER_UPLOAD = "after-upload"  # every file is in the mirror, the receipt is not
    AFTER_UPLOAD_RECEIPT = "after-upload-receipt"  # committed there as well
    UPLOAD_RECEIPT_DELETED = "upload-receipt-deleted"  # retention in the mirror: its receipt is gone, files are not
    MID_FETCH = "mid-fetch"  # one file has come back from the mirror
    AFTER_FETCH = "after-fetch"  # every file has come back and is right; the run folder has no receipt yet


def _nothing(stage: Stage) -> None:
    """Production's hook."""


on_stage: Callable[[Stage], None] = _nothing


def reached(stage: Stage) -> None:
    """Tell the hook."""
    on_stage(stage)
