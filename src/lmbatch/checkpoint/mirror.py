"""The second copy of committed checkpoints, in another store: payload, then receipt, as in the run folder."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lmbatch.checkpoint import records
from lmbatch.checkpoint.attempts import attempt_in_progress
from lmbatch.checkpoint.behind import Behind
from lmbatch.checkpoint.commit import publish_receipt
from lmbatch.checkpoint.files import sync, sync_folders
from lmbatch.checkpoint.inventory import TORN, Inventory, owner_of
from lmbatch.checkpoint.layout import PREFIX, RECEIPT, receipt_key, step_of
from lmbatch.checkpoint.local import LocalCheckpoints
from lmbatch.checkpoint.pins import is_pinned, pin_key
from lmbatch.checkpoint.receipt import CheckpointReceipt, Problem, Refusal, parse_receipt
from lmbatch.checkpoint.retention import Losses, delete_remote, no_losses, removable
from lmbatch.checkpoint.rule import KeepRule, reasons_to_keep
from lmbatch.checkpoint.stages import Stage, reached
from lmbatch.errors import CheckpointError, ObjectNotFoundError, StoreError
from lmbatch.store import FileEntry, Store

log = logging.getLogger(__name__)


class Mirror:
    """Copies to and from ``store``. One upload at a time, in a thread of its own.

    A checkpoint that is committed meanwhile waits, and takes the place of one that waits already: a store that is
    slower than the saves gets the newest whenever it is free. ``on_upload(step, seconds)`` and ``on_failure`` are
    called in that thread, the second as soon as an upload has failed.
    """

    def __init__(
        self, store: Store, rule: KeepRule, losses: Losses = no_losses, *,
        on_upload: Callable[[int, float], None] = lambda *_: None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.store = store
        self._rule, self._losses, self._on_upload = rule, losses, on_upload
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
        steps = {info.key: step_of(info.key.split("/")[1]) for info in self.store.list(PREFIX + "/")}
        keys = [key for key, step in steps.items() if step is not None and key == receipt_key(step)]
        found = zip(keys, self.store.read_many(keys), strict=True)
        return {step: data for key, data in found if data is not None and (step := steps[key]) is not None}

    def fetch(self, local: LocalCheckpoints, step: int, data: bytes) -> CheckpointReceipt | Problem:
        """Bring a checkpoint back, with its pin: download, verify every byte, commit it in the run folder.

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
                self._download(local.root, receipt.files)
                # What was spoilt on the way comes right the second time; what lies there damaged does not.
                self._download(local.root, local.wrong_files(receipt))
            except ObjectNotFoundError as error:
                return Problem("damaged", error.message)
            reached(Stage.MID_PAYLOAD)
            sync_folders(folder)
            for parent in (folder.parent, local.root / PREFIX, local.root):
                sync(parent)
            if problems := local.check(receipt):
                return Problem("damaged", "; ".join(problems))
            reached(Stage.AFTER_FETCH)
            if is_pinned(self.store, step):
                local.store.put(pin_key(step), self.store.read(pin_key(step)))
            publish_receipt(local, receipt)
        return receipt

    def _download(self, root: Path, files: Sequence[FileEntry]) -> None:
        for file in files:
            path = root / file.key
            path.parent.mkdir(parents=True, exist_ok=True)
            self.store.get_file(file.key, path)
            if file is files[0]:
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
        self._prune(receipt.facts.step)

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
        records.push(self.store, local.root, receipt.facts.step)
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
        self._set_aside(key, data)
        return True

    def _set_aside(self, key: str, data: bytes) -> None:
        name = f"receipt.damaged-{hashlib.sha256(data).hexdigest()[:8]}.json"
        self.store.put(key.removesuffix(RECEIPT) + name, data)
        self.store.delete(key)

    def retire(self, refusals: Iterable[Refusal]) -> None:
        """Set the receipts aside that were refused here as damaged. A store that fails is only worth a warning."""
        for refusal in refusals:
            if refusal.place == self.store.uri and refusal.kind in ("damaged", "unreadable"):
                key = receipt_key(refusal.step)
                try:
                    self._set_aside(key, self.store.read(key))
                except StoreError as error:
                    log.warning("%s/%s: could not be set aside: %s", self.store.uri, key, error.message)

    def _prune(self, uploaded: int) -> None:
        """Keep whole copies by the same rule, and what was just ``uploaded`` in any case. Receipts go first, then what
        no receipt names any more and is older than the newest ones."""
        found = Inventory.of(self.store)
        evidence = list(found.evidence(self._losses(), 0, check=bool))
        kept = reasons_to_keep(evidence, self._rule) | {uploaded: ("newest",)}
        if delete_remote(self.store, found, removable(found, kept)):
            records.sweep(self.store)
        newest = sorted(one.step for one in evidence if one.valid)[-self._rule.newest :]
        if len(newest) == self._rule.newest:
            self._sweep(found, before=min(newest[0], uploaded))

    def _sweep(self, found: Inventory, *, before: int) -> None:
        """Delete what interrupted uploads of steps ``before`` one have left; a pinned step is left alone."""
        for key in found.sizes:
            owner = owner_of(key)
            if owner is None or owner >= before or found.pinned(owner):
                continue
            receipt = found.receipts.get(owner, TORN)
            if isinstance(receipt, Problem) and receipt.kind == "torn":
                self.store.delete(key)


def _run_of(receipt: CheckpointReceipt) -> tuple[str, str]:
    return receipt.facts.config, receipt.facts.manifest_digest
