"""An attempt at saving a step: its folder, and the lock that tells a live attempt from a dead one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lmbatch.checkpoint.files import remove_tree
from lmbatch.checkpoint.layout import RECEIPT, is_attempt, payload_folder, step_of
from lmbatch.checkpoint.lock import FileLock
from lmbatch.checkpoint.receipt import CheckpointReceipt, parse_receipt
from lmbatch.errors import CheckpointError


@contextlib.contextmanager
def attempt_in_progress(root: Path, step: int, attempt: str) -> Iterator[Path]:
    """The attempt's payload folder, protected from every sweep until the block is left."""
    folder = root / payload_folder(step, attempt)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock_of(folder)
    if not lock.take():
        raise CheckpointError(f"{folder}: another process is writing this checkpoint")
    try:
        folder.mkdir(exist_ok=True)
        yield folder
    finally:
        lock.path.unlink(missing_ok=True)
        lock.free()


def attempts_in(step_folder: Path) -> list[str]:
    """Attempts of one step that left a folder or a lock file behind, committed ones included."""
    names = {path.name.removesuffix(".lock") for path in step_folder.iterdir() if path.name.startswith("attempt-")}
    return sorted(name for name in names if is_attempt(name))


def remove_if_dead(folder: Path) -> bool:
    """Delete an attempt's folder unless it is committed or its writer lives. True if it is gone."""
    lock = _lock_of(folder)
    if not lock.take():
        return False
    try:
        # Looked at under the lock: the writer may have committed between the sweep's listing and this line.
        if committed_attempt(folder.parent) == folder.name:
            return False
        remove_tree(folder)
        return True
    finally:
        lock.path.unlink(missing_ok=True)
        lock.free()


def committed_attempt(step_folder: Path) -> str | None:
    """The attempt that the receipt of this step names; None without a receipt that can be read."""
    step = step_of(step_folder.name)
    try:
        data = (step_folder / RECEIPT).read_bytes()
    except FileNotFoundError:
        return None
    receipt = parse_receipt(data, step if step is not None else -1)
    return receipt.attempt if isinstance(receipt, CheckpointReceipt) else None


def _lock_of(folder: Path) -> FileLock:
    return FileLock(folder.with_name(folder.name + ".lock"))
