"""What is deleted after a commit: checkpoints that the rule has no reason to keep, and leftovers of dead attempts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping

from lmbatch.checkpoint.attempts import attempts_in, remove_if_dead
from lmbatch.checkpoint.files import remove_tree, sync
from lmbatch.checkpoint.inventory import Inventory
from lmbatch.checkpoint.layout import RECEIPT, receipt_key
from lmbatch.checkpoint.local import LocalCheckpoints
from lmbatch.checkpoint.receipt import CheckpointReceipt, Problem
from lmbatch.checkpoint.rule import KeepRule, reasons_to_keep
from lmbatch.checkpoint.stages import Stage, reached
from lmbatch.store import Store
from lmbatch.store.files import TEMPORARY_PREFIX

Losses = Callable[[], Mapping[int, float]]  # validation losses by step, as they are known at the moment


def no_losses() -> Mapping[int, float]:
    """Nothing was ever evaluated."""
    return {}


def prune(
    local: LocalCheckpoints, rule: KeepRule, losses: Mapping[int, float], spared: frozenset[int] = frozenset()
) -> tuple[int, ...]:
    """Delete the checkpoints that ``rule`` does not keep, but no step of ``spared``, which is still being read; gives
    the steps that were deleted.

    A damaged checkpoint never takes the place of a valid one, and one in a newer format is not ours to delete.
    """
    found = Inventory.of(local.store)
    kept = reasons_to_keep(found.evidence(losses, rule.newest, local.trusted), rule)
    return delete_local(local, [step for step in removable(found, kept) if step not in spared])


def removable(found: Inventory, kept: Mapping[int, tuple[str, ...]]) -> list[int]:
    """The steps without a reason to stay, oldest first; what has no receipt, or one in a newer format, is left out."""
    return [step for step in sorted(kept) if not kept[step] and _is_ours(found.receipts[step])]


def delete_local(local: LocalCheckpoints, steps: Iterable[int]) -> tuple[int, ...]:
    """Delete checkpoints of the run folder, each receipt before its payload; gives the steps."""
    return tuple(step for step in steps if _delete(local, step))


def delete_remote(store: Store, found: Inventory, steps: Iterable[int]) -> tuple[int, ...]:
    """The same in any other store. Raises StoreError; what was deleted before stays deleted, and no receipt is left
    without its payload."""
    steps = tuple(steps)
    for step in steps:
        for key in found.keys_of(step):
            store.delete(key)
            if key == receipt_key(step):
                reached(Stage.UPLOAD_RECEIPT_DELETED)
    return steps


def _is_ours(receipt: CheckpointReceipt | Problem) -> bool:
    return isinstance(receipt, CheckpointReceipt) or receipt.kind not in ("torn", "newer")


def _delete(local: LocalCheckpoints, step: int) -> bool:
    """Receipt first: a kill in between leaves a payload without receipt, never a receipt without payload."""
    receipt = local.receipt(step)
    if not _is_ours(receipt):
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
