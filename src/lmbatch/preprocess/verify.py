"""Re-read every byte of a store against its plan, receipts and manifest. Nothing else is believed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from lmbatch.errors import LmbatchError, ObjectNotFoundError
from lmbatch.preprocess.dedup import check_lists, check_units
from lmbatch.preprocess.merge import build_manifest
from lmbatch.preprocess.plan import Plan, Task, load_plan
from lmbatch.preprocess.task import receipt_key
from lmbatch.shards import verify_shard
from lmbatch.store import (
    MANIFEST_KEY,
    FileEntry,
    Manifest,
    Receipt,
    Store,
    parse_manifest,
    parse_receipt,
)

Progress = Callable[[int, int], None]  # tasks checked, tasks in all


@dataclass
class StoreReport:
    """What verification found. ``problems`` maps a task (or "manifest", "tokenizer") to sentences."""

    uri: str
    digest: str | None = None
    tasks: int = 0
    shards: int = 0
    tokens: int = 0
    bytes_read: int = 0
    problems: dict[str, list[str]] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        """True only if every byte is what the receipts and the manifest say."""
        return not self.problems

    def add(self, place: str, problem: str) -> None:
        """Note a problem."""
        self.problems.setdefault(place, []).append(problem)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "store": self.uri,
            "right": self.right,
            "digest": self.digest,
            "tasks": self.tasks,
            "shards": self.shards,
            "tokens": self.tokens,
            "bytes_read": self.bytes_read,
            "problems": self.problems,
        }


def verify_store(store: Store, *, workers: int = 4, progress: Progress | None = None) -> StoreReport:
    """Check every receipt, shard, quarantine list and profile, stage of de-duplication, the tokenizer and the manifest.

    Raises ObjectNotFoundError or PlanError only where there is no plan to check against; everything else is a
    problem in the report.
    """
    plan = load_plan(store)
    report = StoreReport(store.uri, tasks=len(plan.tasks))
    receipts: dict[str, Receipt] = {}
    with ThreadPoolExecutor(workers) as pool:
        checked = pool.map(lambda task: _check_task(store, plan, task), plan.tasks)
        for number, (task, receipt, problems) in enumerate(checked, start=1):
            for problem in problems:
                report.add(task.id, problem)
            if receipt is not None:
                receipts[task.id] = receipt
                report.shards += len(receipt.shards)
                report.tokens += sum(shard.tokens for shard in receipt.shards)
                report.bytes_read += sum(entry.size for entry in _files(receipt))
            if progress is not None:
                progress(number, len(plan.tasks))
    _check_stages(store, plan, receipts, report, workers)
    for entry in plan.tokenizer.files:
        for problem in _check_file(store, entry):
            report.add("tokenizer", problem)
    _check_manifest(store, plan, receipts, report)
    return report


def _check_stages(store: Store, plan: Plan, receipts: dict[str, Receipt], report: StoreReport, workers: int) -> None:
    """The stages of de-duplication, if there are any, and that the tasks stand on them."""
    checks = check_units(store, plan, _check_file, workers)
    for check in checks:
        report.bytes_read += check.receipt.payload.size if check.receipt else 0
        for problem in check.problems:
            report.add(check.id, problem)
    for task, problem in check_lists(checks, receipts):
        report.add(task, problem)


def _files(receipt: Receipt) -> Iterator[FileEntry]:
    for shard in receipt.shards:
        yield from (shard.bin, shard.idx, shard.docs)
    yield from _beside(receipt)


def _beside(receipt: Receipt) -> Iterator[FileEntry]:
    yield from (entry for entry in (receipt.quarantine, receipt.profile) if entry is not None)


def _check_task(store: Store, plan: Plan, task: Task) -> tuple[Task, Receipt | None, list[str]]:
    key = receipt_key(task.id)
    try:
        receipt = parse_receipt(store.read(key), f"{store.uri}/{key}")
    except ObjectNotFoundError:
        return task, None, [f"{key}: there is no receipt, so the task is not done"]
    except LmbatchError as error:
        return task, None, [error.message]
    if receipt.task != task.id or receipt.plan != plan.fingerprint:
        return task, None, [f"{key}: belongs to {receipt.task} of plan {receipt.plan[:19]}…"]
    problems: list[str] = []
    facts = plan.tokenizer
    for shard in receipt.shards:
        problems += verify_shard(
            store,
            shard,
            dtype=plan.dtype,
            largest_id=facts.largest_id,
            eod_id=facts.eod_id,
            chunking=plan.config.chunking,
        )
    for entry in _beside(receipt):
        problems += _check_file(store, entry)
    return task, receipt, problems


def _check_file(store: Store, entry: FileEntry) -> list[str]:
    try:
        size = store.info(entry.key).size
        with store.open(entry.key) as stream:
            hashed = hashlib.file_digest(stream, "sha256")  # type: ignore[arg-type]  # it has readinto
    except LmbatchError as error:
        return [error.message]
    if size != entry.size:
        return [f"{entry.key}: {size} bytes, should be {entry.size}"]
    if hashed.hexdigest() != entry.sha256:
        return [f"{entry.key}: its bytes do not give the sha256 of the receipt"]
    return []


def _check_manifest(store: Store, plan: Plan, receipts: dict[str, Receipt], report: StoreReport) -> None:
    manifest: Manifest | None = None
    try:
        manifest = parse_manifest(store.read(MANIFEST_KEY), f"{store.uri}/{MANIFEST_KEY}")
        report.digest = manifest.digest
    except LmbatchError as error:
        report.add("manifest", error.message)
    if len(receipts) < len(plan.tasks):
        return
    try:
        expected = build_manifest(plan, receipts)
    except LmbatchError as error:
        report.add("manifest", error.message)
        return
    if manifest is not None and manifest != expected:
        report.add("manifest", f"{MANIFEST_KEY}: is not what the receipts give ({expected.digest})")
