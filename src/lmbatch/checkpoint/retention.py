"""What is deleted after a commit: checkpoints beyond the newest valid ``keep``, and the leftovers of dead attempts."""

from __future__ import annotations

import contextlib

from lmbatch.checkpoint.attempts import attempts_in, remove_if_dead
from lmbatch.checkpoint.files import remove_tree, sync
from lmbatch.checkpoint.layout import RECEIPT
from lmbatch.checkpoint.local import LocalCheckpoints
from lmbatch.checkpoint.receipt import CheckpointReceipt, Problem
from lmbatch.checkpoint.stages import Stage, reached
from lmbatch.store.files import TEMPORARY_PREFIX


def prune(local: LocalCheckpoints, keep: int, spared: frozenset[int] = frozenset()) -> tuple[int, ...]:
    """Delete what lies beyond the newest ``keep`` valid checkpoints, but no step of ``spared``, which is still being
    read; gives the steps that were deleted.

    A damaged checkpoint never takes the place of a valid one, and one in a newer format is not ours to delete.
    """
    oldest_kept = _oldest_kept(local, keep)
    removed = []
    for step in local.steps():
        if step < oldest_kept and step not in spared and _delete(local, step):
            removed.append(step)
    return tuple(removed)


def _oldest_kept(local: LocalCheckpoints, keep: int) -> int:
    """The ``keep``-th newest valid step; 0 while there are fewer."""
    valid = 0
    for step in reversed(local.steps()):
        receipt = local.receipt(step)
        if isinstance(receipt, CheckpointReceipt) and local.trusted(receipt):
            valid += 1
            if valid == keep:
                return step
    return 0


def _delete(local: LocalCheckpoints, step: int) -> bool:
    """Receipt first: a kill in between leaves a payload without receipt, never a receipt without payload."""
    receipt = local.receipt(step)
    if isinstance(receipt, Problem) and receipt.kind in ("torn", "newer"):
        return False
    folder = local.folder(step)
    (folder / RECEIPT).unlink(missing_ok=True)
    sync(folder)
    reached(Stage.RECEIPT_DELETED)
    if isinstance(receipt, CheckpointReceipt):
        remove_tree(local.payload(receipt))
    return True


def sweep(local: LocalCheckpoints) -> None:
    """Remove the leftovers of attempts that died; an attempt in progress is protected by its lock.

    The payload behind a receipt that cannot be used (newer, damaged) stays: nobody can tell which attempt it names.
    """
    for step in local.step_folders():
        receipt = local.receipt(step)
        if isinstance(receipt, Problem) and receipt.kind != "torn":
            continue
        folder = local.folder(step)
        for attempt in attempts_in(folder):
            remove_if_dead(folder / attempt)
        _remove_if_bare(local, step)


def _remove_if_bare(local: LocalCheckpoints, step: int) -> None:
    """A step's folder goes when nothing is left in it but set-aside receipts and files of a killed publish."""
    folder = local.folder(step)
    if (folder / RECEIPT).exists() or attempts_in(folder):
        return
    for left in [*folder.glob("receipt.damaged-*.json"), *folder.glob(f"{TEMPORARY_PREFIX}*")]:
        left.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something else lies there: not ours to delete
        folder.rmdir()
