"""The checkpoints in the run folder: list, read, verify, set aside."""

from __future__ import annotations

import contextlib
from pathlib import Path

from lmbatch.checkpoint.attempts import attempts_in
from lmbatch.checkpoint.files import sha256_of, sync
from lmbatch.checkpoint.layout import PREFIX, RECEIPT, payload_folder, receipt_key, step_folder, step_of
from lmbatch.checkpoint.receipt import CheckpointReceipt, Problem, parse_receipt
from lmbatch.errors import CheckpointError
from lmbatch.store import Store
from lmbatch.store.manifest import FileEntry

Signature = tuple[tuple[int, int, int], ...]  # size, mtime in ns and inode of every file


class LocalCheckpoints:
    """A read-only view of ``ROOT/checkpoints``, apart from :meth:`set_aside`.

    ROOT is the local folder behind ``store``; another kind of store is a CheckpointError.
    """

    def __init__(self, store: Store) -> None:
        place = store.local_path(PREFIX)
        if place is None:
            raise CheckpointError(
                f"{store.uri}: checkpoints are written to a local folder first, and this is none",
                remedy="give a local folder as `run.dir`, and the object store as `save.store`",
            )
        self.store = store
        self.root = place.parent
        self._verified: dict[str, Signature] = {}  # by attempt

    def steps(self) -> list[int]:
        """Every step that has a receipt or an attempt, in rising order; what was only set aside is none."""
        return [step for step in self.step_folders() if self._has_something(step)]

    def step_folders(self) -> list[int]:
        """Every step that has a folder, in rising order, whatever is in it."""
        folder = self.root / PREFIX
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(step for name in names if (step := step_of(name)) is not None)

    def folder(self, step: int) -> Path:
        """The step's folder."""
        return self.root / step_folder(step)

    def payload(self, receipt: CheckpointReceipt) -> Path:
        """The folder with the checkpoint's files."""
        return self.root / payload_folder(receipt.facts.step, receipt.attempt)

    def receipt(self, step: int) -> CheckpointReceipt | Problem:
        """The step's receipt, or why there is none that counts."""
        try:
            data = (self.root / receipt_key(step)).read_bytes()
        except FileNotFoundError:
            return Problem("torn", "there is no receipt: the save was interrupted before its commit")
        except OSError as error:
            return Problem("unreadable", f"receipt.json cannot be read: {error}")
        return parse_receipt(data, step)

    def check(self, receipt: CheckpointReceipt) -> list[str]:
        """Re-read every byte. [] = valid; otherwise one line for each file that is wrong."""
        signature = self._signature(receipt)
        problems = [line for file in receipt.files if (line := _check_file(self.root / file.key, file)) is not None]
        if not problems and signature is not None:
            self._verified[receipt.attempt] = signature
        return problems

    def vouch(self, receipt: CheckpointReceipt) -> None:
        """This process has just written these files itself: it need not re-read them while nobody touches them."""
        if (signature := self._signature(receipt)) is not None:
            self._verified[receipt.attempt] = signature

    def wrong_files(self, receipt: CheckpointReceipt) -> list[FileEntry]:
        """The files that :meth:`check` would complain about."""
        return [file for file in receipt.files if _check_file(self.root / file.key, file) is not None]

    def trusted(self, receipt: CheckpointReceipt) -> bool:
        """As :meth:`check`, but files that this process wrote or verified, untouched since, are not re-read."""
        signature = self._signature(receipt)
        known = signature is not None and self._verified.get(receipt.attempt) == signature
        return known or not self.check(receipt)

    def find(self, step: int) -> CheckpointReceipt | Problem:
        """The receipt of a checkpoint whose every byte was verified, or what is wrong with it."""
        receipt = self.receipt(step)
        if isinstance(receipt, Problem):
            return receipt
        problems = self.check(receipt)
        return Problem("damaged", "; ".join(problems)) if problems else receipt

    def set_aside(self, step: int) -> Path:
        """Rename a receipt to ``receipt.damaged-N.json``: the step is free again, the evidence stays."""
        folder = self.folder(step)
        number = 1 + sum(1 for _ in folder.glob("receipt.damaged-*.json"))
        aside = folder / f"receipt.damaged-{number}.json"
        (folder / RECEIPT).rename(aside)
        sync(folder)
        return aside

    def _has_something(self, step: int) -> bool:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # removed by the run while we look
            return (self.root / receipt_key(step)).exists() or bool(attempts_in(self.folder(step)))
        return False

    def _signature(self, receipt: CheckpointReceipt) -> Signature | None:
        try:
            stats = [(self.root / file.key).stat() for file in receipt.files]
        except OSError:
            return None
        return tuple((stat.st_size, stat.st_mtime_ns, stat.st_ino) for stat in stats)


def _check_file(path: Path, entry: FileEntry) -> str | None:
    """Size first: it is free, and says more than a wrong hash."""
    try:
        size = path.stat().st_size
        if size != entry.size:
            return f"{path}: has {size} bytes, its receipt says {entry.size}"
        if sha256_of(path) != entry.sha256:
            return f"{path}: its bytes were changed (sha256 differs from the receipt's)"
    except FileNotFoundError:
        return f"{path}: is missing"
    except OSError as error:
        return f"{path}: cannot be read: {error}"
    return None
