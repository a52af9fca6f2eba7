"""Where the checkpoints of a run lie: its folder, or the store that they are copied to. Both are read alike."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from lmbatch.checkpoint import CheckpointFacts, CheckpointReceipt, RunLock, records
from lmbatch.checkpoint.inventory import Inventory
from lmbatch.checkpoint.layout import PREFIX, receipt_key
from lmbatch.checkpoint.local import LocalCheckpoints
from lmbatch.checkpoint.pins import pin, unpin
from lmbatch.checkpoint.receipt import Problem
from lmbatch.checkpoint.retention import delete_local, delete_remote, removable, sweep
from lmbatch.checkpoint.rule import KeepRule, reasons_to_keep
from lmbatch.cli.common import Update
from lmbatch.config import TrainConfig
from lmbatch.config.load import build, parse_yaml
from lmbatch.errors import ObjectNotFoundError, UsageError
from lmbatch.store import FileEntry, Store, open_store
from lmbatch.train.folder import open_mirror
from lmbatch.train.metrics import validation_losses

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Listed:
    """A checkpoint; ``kept``: the reasons for which it stays, () for one that the next prune deletes."""

    step: int
    state: str
    detail: str
    bytes: int
    files: int
    saved_at: float | None  # seconds since the epoch
    facts: CheckpointFacts | None
    validation_loss: float | None
    pinned: bool
    kept: tuple[str, ...]


class Place:
    """``folder`` is the run folder, None for a copy of one, in a store or in another folder."""

    def __init__(self, store: Store, folder: Path | None) -> None:
        self.store, self.folder = store, folder

    @classmethod
    def open(cls, run: str) -> Self:
        """Raises UsageError for a folder that does not exist, StoreError for a store that cannot be opened."""
        store = open_store(run)
        path = store.local_path(PREFIX)
        if path is not None and not path.parent.is_dir():
            raise UsageError(f"{run}: there is no such folder", remedy="name a run's folder, by default runs/NAME")
        return cls(store, path.parent if path is not None and not (path.parent / records.PREFIX).is_dir() else None)

    @cached_property
    def inventory(self) -> Inventory:
        """What lies there, as it was at the first look."""
        return Inventory.of(self.store)

    @cached_property
    def config(self) -> TrainConfig | None:
        """The run's resolved config, if it is there."""
        data = self._record("config.yaml")
        where = self.store.where("config.yaml")
        return None if data is None else build(TrainConfig, parse_yaml(data.decode(), where) or {}, where)

    @cached_property
    def losses(self) -> dict[int, float]:
        """The validation losses by step, as far as the rows of metrics are there."""
        data = self._record("metrics.jsonl") or b""
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        return validation_losses([json.loads(line) for line in lines if b'"evaluation"' in line])

    def rule(self) -> KeepRule:
        """The rule of the run's config; that of the defaults without one."""
        save = self.config.save if self.config is not None else None
        return KeepRule() if save is None else KeepRule(save.keep, save.keep_every, save.keep_best)

    def listed(self) -> list[Listed]:
        """Every checkpoint, in rising order."""
        found, rule = self.inventory, self.rule()
        kept = reasons_to_keep(found.evidence(self.losses, 0, bool), rule)
        return [self._listed(step, found.receipts[step], kept[step]) for step in sorted(found.receipts)]

    def verify(self, steps: Sequence[int], update: Update) -> dict[int, list[str]]:
        """Re-read every byte; what is wrong with each step, [] for a right one."""
        receipts = {step: self.inventory.receipts.get(step, Problem("torn", "there is no such checkpoint"))
                    for step in steps}  # fmt: skip
        reader = _Reader(self.store, update, sum(map(_bytes, receipts.values())))
        return {step: [receipt.reason] if isinstance(receipt, Problem) else reader.problems(receipt)
                for step, receipt in receipts.items()}  # fmt: skip

    def pinned_too(self, step: int) -> Iterator[Place]:
        """This place, and that of the run's copy if it has the step. Raises UsageError if this one has not."""
        if not isinstance(self.inventory.receipts.get(step), CheckpointReceipt):
            known = ", ".join(map(str, sorted(self.inventory.receipts))) or "none"
            raise UsageError(f"{self.store.uri}: has no checkpoint of step {step}", remedy=f"those there are: {known}")
        yield self
        mirror = open_mirror(self.config) if self.folder is not None and self.config is not None else None
        if mirror is not None and mirror.exists(receipt_key(step)):
            yield Place(mirror, None)

    def pin(self, step: int, note: str) -> None:
        """Keep it whatever the rule says."""
        pin(self.store, step, note)

    def unpin(self, step: int) -> None:
        """Let the rule decide."""
        unpin(self.store, step)

    def held(self, dry_run: bool) -> RunLock | nullcontext[None]:
        """The run's lock, which a run that is being trained holds. Raises RunBusyError on entering."""
        return RunLock(self.folder) if self.folder is not None and not dry_run else nullcontext()

    def prune(
        self, rule: KeepRule, update: Update, *, thorough: bool, dry_run: bool
    ) -> tuple[dict[int, tuple[str, ...]], tuple[int, ...]]:
        """Delete what there is no reason to keep; the reasons of the others, and the steps that went."""
        found = Inventory.of(self.store)
        sizes = [one.payload_bytes for _, one in sorted(found.receipts.items()) if isinstance(one, CheckpointReceipt)]
        reader = _Reader(self.store, update, sum(sizes[-rule.newest :]))
        read = self.folder is not None or thorough
        kept = reasons_to_keep(
            found.evidence(self.losses, rule.newest if read else 0, lambda one: not reader.problems(one)), rule
        )
        gone = tuple(removable(found, kept))
        if not dry_run and self.folder is not None:
            local = LocalCheckpoints(self.store)
            delete_local(local, gone)
            sweep(local)
        elif not dry_run:
            delete_remote(self.store, found, gone)
        return {step: why for step, why in kept.items() if why}, gone

    @contextmanager
    def on_disk(self, step: int | None, update: Update, beside: Path) -> Iterator[Path]:
        """A run folder with the weights of a checkpoint: the run's own, or what is fetched of its copy, ``beside``."""
        if self.folder is not None:
            yield self.folder
            return
        beside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".lmbatch-run-", dir=beside) as name:
            self._fetch_weights(self._chosen(step), Path(name), update)
            yield Path(name)

    def _chosen(self, step: int | None) -> CheckpointReceipt:
        found = self.inventory
        whole = {n: one for n, one in found.receipts.items() if isinstance(one, CheckpointReceipt) and found.whole(one)}
        chosen = whole.get(max(whole, default=0) if step is None else step)
        if chosen is None:
            raise UsageError(
                f"{self.store.uri}: has no whole checkpoint{'' if step is None else f' of step {step}'}",
                remedy=f"those there are: {', '.join(map(str, sorted(whole))) or 'none'}",
            )
        return chosen

    def _fetch_weights(self, receipt: CheckpointReceipt, root: Path, update: Update) -> None:
        """Of a checkpoint a third is weights. What is fetched gets a receipt of its own, so that it is verified."""
        records.pull(self.store, root)
        weights = tuple(file for file in receipt.files if Path(file.key).name.startswith("model."))
        done, total = 0, sum(file.size for file in weights)
        for file in weights:
            (root / file.key).parent.mkdir(parents=True, exist_ok=True)
            self.store.get_file(file.key, root / file.key)
            done += file.size
            update(done, total, file.key)
        partial = receipt.model_copy(update={"files": weights}).sealed()
        open_store(str(root)).publish(receipt_key(receipt.facts.step), partial.to_json())

    def _record(self, name: str) -> bytes | None:
        path = self.folder / name if self.folder is not None else None
        if path is None:
            return records.read_record(self.store, name, self.inventory)
        return path.read_bytes() if path.exists() else None

    def _listed(self, step: int, receipt: CheckpointReceipt | Problem, kept: tuple[str, ...]) -> Listed:
        more = (self.losses.get(step), self.inventory.pinned(step), kept)
        if isinstance(receipt, Problem):
            return Listed(step, receipt.kind, receipt.reason, 0, 0, None, None, *more)
        gaps = self.inventory.gaps(receipt)
        return Listed(step, "damaged" if gaps else "committed", "; ".join(gaps), receipt.payload_bytes,
                      len(receipt.files), receipt.saved_at, receipt.facts, *more)  # fmt: skip


def rule_of(place: Place, keep: int | None, every: int | None, best: int | None) -> KeepRule:
    """The rule of flags, where one is given, else of the run's config. Raises UsageError without both."""
    if place.config is None and keep is None:
        raise UsageError(f"{place.store.uri}: has no config that says what to keep", remedy="say it: --keep 2")
    known = place.rule()
    return KeepRule(
        known.newest if keep is None else keep,
        known.every if every is None else every,
        known.best if best is None else best,
    )


def _bytes(receipt: CheckpointReceipt | Problem) -> int:
    return 0 if isinstance(receipt, Problem) else receipt.payload_bytes


class _Reader:
    """Reads payloads and compares them with their receipts, and says how far it is."""

    def __init__(self, store: Store, update: Update, total: int) -> None:
        self._store, self._update, self._total, self._done = store, update, total, 0

    def problems(self, receipt: CheckpointReceipt) -> list[str]:
        """A line for each file that is wrong."""
        return [line for file in receipt.files if (line := self._problem(file)) is not None]

    def _problem(self, file: FileEntry) -> str | None:
        where, digest, size = self._store.where(file.key), hashlib.sha256(), 0
        try:
            with self._store.open(file.key) as stream:
                while piece := stream.read(_PIECE_BYTES):
                    digest.update(piece)
                    size += len(piece)
                    self._done += len(piece)
                    self._update(self._done, max(self._done, self._total), where)
        except ObjectNotFoundError:
            return f"{where}: is missing"
        if size != file.size:
            return f"{where}: has {size} bytes, its receipt says {file.size}"
        return None if digest.hexdigest() == file.sha256 else f"{where}: its bytes were changed (sha256 differs)"
