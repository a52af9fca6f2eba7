"""The second copy of committed checkpoints, in another store: payload, then receipt, as in the run folder."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Mapping
from pathlib import Path

from lmbatch.checkpoint.attempts import attempt_in_progress
from lmbatch.checkpoint.commit import publish_receipt, seal_payload
from lmbatch.checkpoint.layout import PREFIX, RECEIPT, receipt_key, step_of
from lmbatch.checkpoint.local import LocalCheckpoints
from lmbatch.checkpoint.receipt import CheckpointReceipt, Problem, parse_receipt
from lmbatch.checkpoint.stages import Stage, reached
from lmbatch.errors import CheckpointError, ObjectNotFoundError
from lmbatch.store import Store

log = logging.getLogger(__name__)


class Mirror:
    """Copies to and from ``store``. One upload at a time, in a thread of its own."""

    def __init__(self, store: Store, *, keep: int) -> None:
        self.store = store
        self._keep = keep
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def start(self, local: LocalCheckpoints, receipt: CheckpointReceipt) -> None:
        """Upload in the background. :meth:`wait` must have been called for the upload before."""
        assert self._thread is None, "one upload at a time"
        self._thread = threading.Thread(target=self._run, args=(local, receipt), name="checkpoint-mirror", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the upload that is under way. Raises CheckpointError if it failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise CheckpointError(
                f"{self.store.uri}: a checkpoint was saved in the run folder, but not copied here: {error}",
                remedy="the local checkpoints are good; repair access to the store (`save.store`) and resume",
            ) from error

    def receipts(self) -> dict[int, bytes]:
        """The receipts that lie in the mirror, by step, as they are."""
        found = {}
        for info in self.store.list(PREFIX + "/"):
            step = step_of(info.key.split("/")[1])
            if step is not None and info.key == receipt_key(step):
                found[step] = self.store.read(info.key)
        return found

    def fetch(self, local: LocalCheckpoints, step: int, data: bytes) -> CheckpointReceipt | Problem:
        """Bring a checkpoint back: download, verify every byte, commit it in the run folder.

        ``data`` is the mirror's receipt. What stood for this step in the run folder is set aside. Raises StoreError
        if the store or the disk fails; bytes that are missing or wrong are a Problem.
        """
        receipt = parse_receipt(data, step)
        if isinstance(receipt, Problem):
            return receipt
        if (local.folder(step) / RECEIPT).exists():
            local.set_aside(step)
        with attempt_in_progress(local.root, step, receipt.attempt) as folder:
            try:
                self._download(local.root, receipt)
            except ObjectNotFoundError as error:
                return Problem("damaged", error.message)
            seal_payload(local.root, folder)
            if problems := local.check(receipt):
                return Problem("damaged", "; ".join(problems))
            reached(Stage.AFTER_FETCH)
            publish_receipt(local, receipt)
        return receipt

    def _download(self, root: Path, receipt: CheckpointReceipt) -> None:
        for file in receipt.files:
            path = root / file.key
            path.parent.mkdir(parents=True, exist_ok=True)
            self.store.get_file(file.key, path)
            if file is receipt.files[0]:
                reached(Stage.MID_FETCH)

    def _run(self, local: LocalCheckpoints, receipt: CheckpointReceipt) -> None:
        try:
            self._upload(local, receipt)
            self._prune()
        except Exception as error:  # it belongs to the thread that trains: see wait()
            self._error = error

    def _upload(self, local: LocalCheckpoints, receipt: CheckpointReceipt) -> None:
        key = receipt_key(receipt.facts.step)
        if self.store.exists(key) and not self._make_way(key, receipt):
            return
        reached(Stage.BEFORE_UPLOAD)
        for file in receipt.files:
            self.store.put_file(file.key, local.root / file.key)
            if file is receipt.files[0]:
                reached(Stage.MID_UPLOAD)
        reached(Stage.AFTER_UPLOAD)
        if not self.store.publish(key, receipt.to_json()):
            raise CheckpointError(f"{self.store.uri}/{key}: another run has committed this step meanwhile")
        reached(Stage.AFTER_UPLOAD_RECEIPT)

    def _make_way(self, key: str, receipt: CheckpointReceipt) -> bool:
        """False if the mirror has this very checkpoint. One of this run that was refused on resume is set aside."""
        data = self.store.read(key)
        old = parse_receipt(data, receipt.facts.step)
        if isinstance(old, CheckpointReceipt):
            if old.attempt == receipt.attempt:
                return False
            if _run_of(old) != _run_of(receipt):
                raise CheckpointError(
                    f"{self.store.uri}/{key}: belongs to another run (its config or its data is another)",
                    remedy="give each run a `save.store` of its own",
                )
        log.warning("%s/%s: replaced; the old receipt is kept beside it", self.store.uri, key)
        name = f"receipt.damaged-{hashlib.sha256(data).hexdigest()[:8]}.json"
        self.store.put(key.removesuffix(RECEIPT) + name, data)
        self.store.delete(key)
        return True

    def _prune(self) -> None:
        """Keep the newest ``keep`` whole copies. Receipts go first, then what no receipt names any more."""
        sizes = {info.key: info.size for info in self.store.list(PREFIX + "/")}
        receipts = {step: parse_receipt(data, step) for step, data in self.receipts().items()}
        oldest_kept = _oldest_kept(receipts, sizes, self._keep)
        for step in sorted(receipts):
            if step < oldest_kept and not _is_newer(receipts[step]):
                self.store.delete(receipt_key(step))
                reached(Stage.UPLOAD_RECEIPT_DELETED)
                del receipts[step]
                sizes.pop(receipt_key(step), None)
        for key in sizes:
            owner = step_of(key.split("/")[1])
            if owner is not None and owner < oldest_kept and owner not in receipts:
                self.store.delete(key)


def _run_of(receipt: CheckpointReceipt) -> tuple[str, str]:
    return receipt.facts.config, receipt.facts.manifest_digest


def _is_newer(receipt: CheckpointReceipt | Problem) -> bool:
    return isinstance(receipt, Problem) and receipt.kind == "newer"


def _oldest_kept(receipts: Mapping[int, CheckpointReceipt | Problem], sizes: Mapping[str, int], keep: int) -> int:
    """The ``keep``-th newest step whose files are all there in their full sizes; 0 while there are fewer."""
    whole = [
        step
        for step, receipt in sorted(receipts.items(), reverse=True)
        if isinstance(receipt, CheckpointReceipt) and all(sizes.get(file.key) == file.size for file in receipt.files)
    ]
    return whole[keep - 1] if len(whole) >= keep else 0
