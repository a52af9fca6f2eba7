"""The face of the package: save, find the newest valid one, retire, list, verify."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from lmbatch.checkpoint.commit import Write, commit
from lmbatch.checkpoint.local import LocalCheckpoints
from lmbatch.checkpoint.mirror import Mirror
from lmbatch.checkpoint.receipt import CheckpointFacts, CheckpointReceipt, Problem, Refusal
from lmbatch.checkpoint.retention import Losses, no_losses, prune, sweep
from lmbatch.checkpoint.rule import KeepRule
from lmbatch.errors import CheckpointError, StoreError
from lmbatch.store import Store

log = logging.getLogger(__name__)

# How long an attempt that was stopped, or that failed, waits for the upload of what it has saved.
UPLOAD_PATIENCE_SECONDS = 300.0

# Names for what the method `list` hides inside the class.
Refusals = list[Refusal]
Summaries = list["CheckpointSummary"]
Lines = list[str]
Paths = list[Path]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A valid checkpoint: a local folder whose every byte was verified, and its facts."""

    step: int
    folder: Path
    facts: CheckpointFacts


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """What a save did. ``new`` is False if this very checkpoint stood there already; sizes in bytes."""

    step: int
    folder: Path
    bytes: int
    seconds: float
    removed: tuple[int, ...]
    new: bool


@dataclass(frozen=True, slots=True)
class CheckpointSummary:
    """One line of `lmbatch checkpoints list`: what the receipt says; the payload's bytes were not read."""

    step: int
    state: Literal["committed", "torn", "damaged", "unreadable", "newer"]
    detail: str
    bytes: int
    files: int
    saved_at: float | None  # seconds since the epoch
    facts: CheckpointFacts | None


class Checkpoints:
    """The checkpoints of one run, in a local store (the run folder), with an optional mirror in another one.

    The primary store must be local: tensors are written by memory-mapped files, and the save is as fast as the disk.
    The mirror may be any store that can publish once. Use as a context manager, or call :meth:`close`.
    """

    def __init__(
        self, store: Store, *, keep: int = 2, keep_every: int = 0, keep_best: int = 0, losses: Losses = no_losses,
        mirror: Store | None = None,
        on_upload: Callable[[int, float], None] = lambda *_: None, on_failure: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """``losses`` gives the validation losses by step that are known when checkpoints are retired (see ``rule``).

        ``on_upload(step, seconds)`` and ``on_failure()`` are called in the thread that copies to ``mirror``.
        """
        self._local = LocalCheckpoints(store)
        self._rule, self._losses, self._mirror = KeepRule(keep, keep_every, keep_best), losses, None
        self._seen: dict[int, bytes] | None = None  # the mirror's receipts, once they were read
        if mirror is not None:
            self._mirror = Mirror(mirror, self._rule, losses, on_upload=on_upload, on_failure=on_failure)

    def save(self, facts: CheckpointFacts, write: Write) -> SavedCheckpoint:
        """Commit ``facts.step``; ``write`` fills the empty local folder that it is given.

        Saving a step again that is valid and the same changes nothing. The upload goes on behind: whether it failed is
        told by :meth:`check_upload` and :meth:`close`. Raises StoreFullError or CheckpointError naming the path.
        """
        started = time.monotonic()
        receipt = self._standing(facts)
        new = receipt is None
        if receipt is None:
            receipt = commit(self._local, facts, write)
        if self._mirror is not None:
            self._mirror.offer(self._local, receipt)
        # What retention deletes must not be what is still being uploaded.
        spared = self._mirror.needed if self._mirror is not None else frozenset()
        removed = prune(self._local, self._rule, self._losses(), spared)
        sweep(self._local)
        folder = self._local.payload(receipt)
        return SavedCheckpoint(facts.step, folder, receipt.payload_bytes, time.monotonic() - started, removed, new)

    def newest_valid(self) -> tuple[Checkpoint | None, Refusals]:
        """The newest checkpoint whose every byte is right, and why each newer one was passed over.

        A step that is missing or damaged in the run folder is fetched from the mirror. Raises StoreError if the mirror
        cannot be reached and the run folder has nothing valid: starting at step 0 would be worse than stopping.
        """
        mirrored, unreachable = self._mirrored()
        self._seen = mirrored if unreachable is None else None
        refusals: Refusals = []
        for step in sorted({*self._local.steps(), *mirrored}, reverse=True):
            found = self._local_or_mirrored(step, mirrored.get(step), refusals)
            if found is not None:
                return found, refusals
        if unreachable is not None:
            raise unreachable
        return None, refusals

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of one step in the run folder, verified. Raises CheckpointError if it is not valid."""
        found = self._local.find(step)
        if isinstance(found, CheckpointReceipt):
            return self._checkpoint(found)
        known = ", ".join(str(other) for other in self._local.steps()) or "none"
        raise CheckpointError(
            f"{self._local.folder(step)}: no valid checkpoint of step {step}: {found.reason}",
            remedy=f"steps that are there: {known}; see `lmbatch checkpoints list`",
        )

    def retire(self, refusals: Iterable[Refusal]) -> Paths:
        """Set the receipts of damaged checkpoints in the run folder aside, so that their steps can be saved again.

        Each is looked at again first: one that the mirror has repaired meanwhile stays. One in a newer format stays.
        Those of the mirror are set aside there, so that they do not take the place of good ones when it is pruned.
        """
        refusals = list(refusals)
        if self._mirror is not None:
            self._mirror.retire(refusals)
        steps = {refusal.step for refusal in refusals if refusal.kind in ("damaged", "unreadable")}
        aside = []
        for step in sorted(steps):
            found = self._local.find(step)
            if isinstance(found, Problem) and found.kind in ("damaged", "unreadable"):
                aside.append(self._local.set_aside(step))
        return aside

    def copy_if_missing(self, step: int) -> None:
        """Upload a valid checkpoint behind, if the mirror lacked it when :meth:`newest_valid` looked: its writer was
        killed before it was copied. A mirror that could not be read gets the next one that is saved.
        """
        receipt = self._local.receipt(step)
        if self._mirror is None or self._seen is None or isinstance(receipt, Problem):
            return
        if self._seen.get(step) != receipt.to_json():
            log.info("step %d is copied to %s: it was not there yet", step, self._mirror.store.uri)
            self._mirror.offer(self._local, receipt)

    def list(self) -> Summaries:
        """Every step of the run folder in rising order, by its receipt alone (no payload is read)."""
        return [_summary(step, self._local.receipt(step)) for step in self._local.steps()]

    def verify(self, step: int) -> Lines:
        """Re-read every byte of one step. [] = valid; otherwise what is wrong, file by file."""
        receipt = self._local.receipt(step)
        return [receipt.reason] if isinstance(receipt, Problem) else self._local.check(receipt)

    def check_upload(self) -> None:
        """Raises CheckpointError if an upload has failed. Waits for none."""
        if self._mirror is not None:
            self._mirror.check()

    def close(self, *, patience: float | None = None) -> None:
        """Wait for the upload that is under way, for at most ``patience`` seconds. Raises CheckpointError if it failed.

        One that is given up leaves a payload without a receipt in the store, which counts for nothing.
        """
        if self._mirror is not None and not self._mirror.wait(patience):
            log.warning("%s: the upload of the newest checkpoint is not through and is given up; it is in the run "
                        "folder", self._mirror.store.uri)  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close(patience=None if error is None else UPLOAD_PATIENCE_SECONDS)
        except CheckpointError:
            if error is None:
                raise
            log.exception("the mirror of the checkpoints failed as well")

    def _standing(self, facts: CheckpointFacts) -> CheckpointReceipt | None:
        """The same checkpoint, if it is there and valid. A damaged one makes way; another one is an error."""
        found = self._local.find(facts.step)
        if isinstance(found, Problem):
            self._make_way(facts.step, found)
            return None
        if _identity(found.facts) == _identity(facts):
            return found
        raise CheckpointError(
            f"{self._local.folder(facts.step)}: a valid checkpoint of step {facts.step} stands there, but it was saved "
            "with another config, other data or another number of samples",
            remedy="give this run another name, or remove that folder",
        )

    def _make_way(self, step: int, problem: Problem) -> None:
        if problem.kind == "newer":
            raise CheckpointError(
                f"{self._local.folder(step)}: {problem.reason}", remedy="go on with the lmbatch version that wrote it"
            )
        if problem.kind != "torn":
            log.warning("step %d: %s; set aside as %s", step, problem.reason, self._local.set_aside(step))

    def _mirrored(self) -> tuple[dict[int, bytes], StoreError | None]:
        if self._mirror is None:
            return {}, None
        try:
            return self._mirror.receipts(), None
        except StoreError as error:
            log.warning("the mirror of the checkpoints cannot be read: %s", error.message)
            return {}, error

    def _local_or_mirrored(self, step: int, mirrored: bytes | None, refusals: Refusals) -> Checkpoint | None:
        found = self._local.find(step) if step in self._local.steps() else None
        if isinstance(found, Problem):
            refusals.append(Refusal(step, found.kind, found.reason, self._local.store.uri))
            if found.kind == "newer":
                return None
        if not isinstance(found, CheckpointReceipt) and mirrored is not None and self._mirror is not None:
            found = self._mirror.fetch(self._local, step, mirrored)
            if isinstance(found, Problem):
                refusals.append(Refusal(step, found.kind, found.reason, self._mirror.store.uri))
        return self._checkpoint(found) if isinstance(found, CheckpointReceipt) else None

    def _checkpoint(self, receipt: CheckpointReceipt) -> Checkpoint:
        return Checkpoint(receipt.facts.step, self._local.payload(receipt), receipt.facts)


def _identity(facts: CheckpointFacts) -> tuple[str, str, int]:
    return facts.config, facts.manifest_digest, facts.samples_consumed


def _summary(step: int, receipt: CheckpointReceipt | Problem) -> CheckpointSummary:
    if isinstance(receipt, Problem):
        return CheckpointSummary(step, receipt.kind, receipt.reason, 0, 0, None, None)
    return CheckpointSummary(
        step, "committed", "", receipt.payload_bytes, len(receipt.files), receipt.saved_at, receipt.facts
    )
