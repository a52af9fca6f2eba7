"""The commit protocol of one save: payload first, fsync, then the receipt by a publish-once write.

Whatever kills the process on the way, the step either has a receipt that names bytes on the disk, or has none.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

from lmbatch.checkpoint.attempts import attempt_in_progress, committed_attempt
from lmbatch.checkpoint.files import disk_errors, files_under, remove_tree, sha256_of, sync, sync_folders
from lmbatch.checkpoint.layout import PREFIX, new_attempt, receipt_key
from lmbatch.checkpoint.local import LocalCheckpoints
from lmbatch.checkpoint.receipt import CheckpointFacts, CheckpointReceipt
from lmbatch.checkpoint.stages import Stage, reached
from lmbatch.errors import CheckpointError
from lmbatch.store.manifest import FileEntry

log = logging.getLogger(__name__)


def commit(local: LocalCheckpoints, facts: CheckpointFacts, write: Callable[[Path], None]) -> CheckpointReceipt:
    """Save one step. ``write`` fills the folder that it is given.

    Raises StoreFullError or CheckpointError naming the path; then nothing of this attempt is left, and older
    checkpoints are untouched. What ``write`` itself raises passes through.
    """
    place = local.folder(facts.step)
    with disk_errors(place, "saving"), attempt_in_progress(local.root, facts.step, new_attempt()) as folder:
        try:
            return _save(local, folder, facts, write)
        except BaseException:
            _clean_up(folder)
            raise


def _save(
    local: LocalCheckpoints, folder: Path, facts: CheckpointFacts, write: Callable[[Path], None]
) -> CheckpointReceipt:
    reached(Stage.BEFORE_PAYLOAD)
    with disk_errors(folder, "writing the checkpoint"):
        write(folder)
        files = seal_payload(local.root, folder)
    reached(Stage.AFTER_PAYLOAD)
    receipt = CheckpointReceipt(attempt=folder.name, saved_at=time.time(), facts=facts, files=files).sealed()
    reached(Stage.BEFORE_RECEIPT)
    publish_receipt(local, receipt)
    reached(Stage.AFTER_RECEIPT)
    return receipt


def seal_payload(root: Path, folder: Path) -> tuple[FileEntry, ...]:
    """fsync and hash every file of a payload, then fsync the folders up to the root."""
    files = []
    for path in files_under(folder):
        sync(path)
        key = path.relative_to(root).as_posix()
        files.append(FileEntry(key=key, size=path.stat().st_size, sha256=sha256_of(path)))
        if len(files) == 1:
            reached(Stage.MID_PAYLOAD)
    if not files:
        raise CheckpointError(f"{folder}: nothing was written into the checkpoint")
    sync_folders(folder)
    for parent in (folder.parent, root / PREFIX, root):
        sync(parent)
    return tuple(files)


def publish_receipt(local: LocalCheckpoints, receipt: CheckpointReceipt) -> None:
    """Commit. Raises CheckpointError if another attempt has committed this step."""
    key = receipt_key(receipt.facts.step)
    if not local.store.publish(key, receipt.to_json()):
        raise CheckpointError(
            f"{local.root / key}: another attempt has committed this step meanwhile",
            remedy="two processes are training into one run folder: stop one of them",
        )
    sync(local.folder(receipt.facts.step))


def _clean_up(folder: Path) -> None:
    """Give the space back. A publish that raised may still have won: then the payload has to stay."""
    with contextlib.suppress(OSError):
        if committed_attempt(folder.parent) == folder.name:
            return
        remove_tree(folder)
        return
    log.warning("%s: could not be removed after a failed save; a later save removes it", folder)
