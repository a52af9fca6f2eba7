"""The commit protocol of one save: payload first, fsync, then the receipt by a publish-once write.

Whatever kills the process on the way, the step either has a receipt that names bytes on the disk, or has none.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

from lmbatch.checkpoint.attempts import attempt_in_progress, committed_attempt
from lmbatch.checkpoint.files import (
    Digest,
    Digests,
    disk_errors,
    files_under,
    remove_tree,
    sha256_of,
    sync,
    sync_folders,
)
from lmbatch.checkpoint.layout import PREFIX, new_attempt, receipt_key
from lmbatch.checkpoint.local import LocalCheckpoints
from lmbatch.checkpoint.receipt import CheckpointFacts, CheckpointReceipt
from lmbatch.checkpoint.stages import Stage, reached
from lmbatch.errors import CheckpointError
from lmbatch.store.manifest import FileEntry

log = logging.getLogger(__name__)

# Fills the folder that it is given, and may tell the digests of files that it hashed as it wrote them.
Write = Callable[[Path], Digests | None]


def commit(local: LocalCheckpoints, facts: CheckpointFacts, write: Write) -> CheckpointReceipt:
    """Save one step.

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


def _save(local: LocalCheckpoints, folder: Path, facts: CheckpointFacts, write: Write) -> CheckpointReceipt:
    reached(Stage.BEFORE_PAYLOAD)
    with disk_errors(folder, "writing the checkpoint"):
        files = seal_payload(local.root, folder, write(folder) or {})
    reached(Stage.AFTER_PAYLOAD)
    receipt = CheckpointReceipt(attempt=folder.name, saved_at=time.time(), facts=facts, files=files).sealed()
    reached(Stage.BEFORE_RECEIPT)
    publish_receipt(local, receipt)
    local.vouch(receipt)
    reached(Stage.AFTER_RECEIPT)
    return receipt


def seal_payload(root: Path, folder: Path, known: Digests = MappingProxyType({})) -> tuple[FileEntry, ...]:
    """fsync every file of a payload, and hash it unless it is ``known``; then fsync the folders up to the root.

    Raises CheckpointError for a file that is not as long as it is known to be.
    """
    files = []
    for path in files_under(folder):
        sync(path)
        found = known.get(path.relative_to(folder).as_posix())
        files.append(_entry(path.relative_to(root).as_posix(), path, found))
        if len(files) == 1:
            reached(Stage.MID_PAYLOAD)
    if not files:
        raise CheckpointError(f"{folder}: nothing was written into the checkpoint")
    sync_folders(folder)
    for parent in (folder.parent, root / PREFIX, root):
        sync(parent)
    return tuple(files)


def _entry(key: str, path: Path, known: Digest | None) -> FileEntry:
    size = path.stat().st_size
    if known is None:
        return FileEntry(key=key, size=size, sha256=sha256_of(path))
    if size != known.size:
        raise CheckpointError(f"{path}: has {size} bytes, but {known.size} were written")
    return FileEntry(key=key, size=size, sha256=known.sha256)


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
