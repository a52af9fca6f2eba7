"""The second copy of committed checkpoints, in another store: payload, then receipt, as in the run folder."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lmbatch.checkpoint.attempts import attempt_in_progress
from lmbatch.checkpoint.behind import Behind
from lmbatch.checkpoint.commit import publish_receipt, seal_payload
from lmbatch.checkpoint.layout import PREFIX, RECEIPT, receipt_key, step_of
from lmbatch.checkpoint.local import LocalCheckpoints
from lmbatch.checkpoint.receipt import CheckpointReceipt, Problem, parse_receipt
from lmbatch.checkpoint.stages import Stage, reached
from lmbatch.errors import CheckpointError, ObjectNotFoundError
from lmbatch.store import Store

log = logging.getLogger(__name__)


class Mirror:
    """Copies to and from ``store``. One upload at a time, in a thread of its own.

    A checkpoint that is committed meanwhile waits, and takes the place of one that waits already: a store that is
    slower than the saves gets the newest whenever it is free. ``on_upload(step, seconds)`` and ``on_failure`` are
    called in that thread, the second as soon as an upload has failed.
    """

    def __init__(
        self, store: Store, *, keep: int, on_upload: Callable[[int, float], None] = lambda *_: None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.store = store
        self._keep, self._on_upload = keep, on_upload
        self._behind = Behind("checkpoint-mirror", on_failure=on_failure)
        self._lock = threading.Lock()  # between the end of the thread's work and the next piece of it
        self._waiting: CheckpointReceipt | None = None
        self._uploading: CheckpointReceipt | None = None

    @property
    def needed(self) -> frozenset[int]:
        """The steps whose local files are being read, or will be."""
        with self._lock:
            found = [receipt for receipt in (self._uploading, self._waiting) if receipt is not None]
        return frozenset(receipt.facts.step for receipt in found)

    def offer(self, local: LocalCheckpoints, receipt: CheckpointReceipt) -> None:
        """Upload in the background, now or when the upload that is under way is through."""
        with self._lock:
            if self._uploading is not None:
                if self._waiting is not None:
                    log.info("step %d is not copied to %s: the one after it is there before its turn",
                             self._waiting.facts.step, self.store.uri)  # fmt: skip
                self._waiting = receipt
                return
            self._uploading = receipt
        self._behind.wait()  # the thread before has nothing more to do
        self._behind.start(lambda: self._run(local, receipt))

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for what is under way, for at most ``seconds``; False: it goes on. Raises CheckpointError as check."""
        through = self._behind.wait(seconds)
        self.check()
        return through

    def check(self) -> None:
        """Raises CheckpointError if an upload has failed, once for each that did; waits for none."""
        error = self._behind.take_error()
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

    def _run(self, local: LocalCheckpoints, first: CheckpointReceipt) -> None:
        receipt: CheckpointReceipt | None = first
        while receipt is not None:
            try:
                self._copy(local, receipt)
            except Exception as error:  # it belongs to the thread that trains, and the next one has its turn
                self._behind.fail(error)
            receipt = self._next()

    def _copy(self, local: LocalCheckpoints, receipt: CheckpointReceipt) -> None:
        started = time.monotonic()
        self._upload(local, receipt)
        self._on_upload(receipt.facts.step, time.monotonic() - started)
        self._prune()

    def _next(self) -> CheckpointReceipt | None:
        with self._lock:
            self._uploading, self._waiting = self._waiting, None
            return self._uploading

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
