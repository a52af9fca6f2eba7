"""From receipts to the manifest: check that nothing is missing, then write it last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

from lmbatch.config import ChunkingConfig, fingerprint
from lmbatch.errors import CorpusError, ErrorBudgetError, PlanError
from lmbatch.preprocess.card import write_card
from lmbatch.preprocess.pipeline import token_problem
from lmbatch.preprocess.plan import Plan, PlannedFile, Task
from lmbatch.preprocess.task import receipt_key
from lmbatch.store import (
    MANIFEST_KEY,
    Ledger,
    Manifest,
    PieceReceipt,
    Receipt,
    ShardEntry,
    Store,
    TokenLedger,
    parse_manifest,
    parse_receipt,
    to_json,
)

ReceiptT = TypeVar("ReceiptT")


def read_receipts(store: Store, tasks: Sequence[Task]) -> dict[str, Receipt]:
    """The receipts that are there, by task. Raises StoreError for one that cannot be trusted."""
    return {receipt.task: receipt for receipt in read_all(store, [task.id for task in tasks], parse_receipt).values()}


def read_all(store: Store, ids: Sequence[str], parse: Callable[[bytes, str], ReceiptT]) -> dict[str, ReceiptT]:
    """The receipts of units of any stage that are there, by id; raises what ``parse`` raises."""
    keys = [receipt_key(unit) for unit in ids]
    read = zip(ids, keys, store.read_many(keys), strict=True)
    return {unit: parse(data, store.where(key)) for unit, key, data in read if data is not None}


def merge(store: Store, plan: Plan) -> Manifest:
    """Build the manifest and write it, last of all; a data card is written before it.

    Raises PlanError if a receipt is missing or belongs to another plan, CorpusError if two pieces of a file do not
    meet, tokens are unaccounted for or nothing is left to train on, ErrorBudgetError if too much was quarantined,
    StoreError if another manifest is there.
    """
    receipts = read_receipts(store, plan.tasks)
    manifest = build_manifest(plan, receipts)
    write_card(store, plan, manifest, [receipt.engine for receipt in receipts.values()])
    if not store.publish(MANIFEST_KEY, to_json(manifest)):
        standing = parse_manifest(store.read(MANIFEST_KEY), f"{store.uri}/{MANIFEST_KEY}")
        if standing.digest != manifest.digest:
            raise PlanError(
                f"{store.uri}/{MANIFEST_KEY}: holds {standing.digest}, the receipts give {manifest.digest}",
                remedy="run `lmbatch verify` on the store, then `lmbatch repair`",
            )
    return manifest


def build_manifest(plan: Plan, receipts: dict[str, Receipt]) -> Manifest:
    """The manifest as a pure function of the plan and its receipts; see `merge` for what is raised."""
    ordered = _in_order(plan, receipts)
    problems = conservation_problems(plan, ordered)
    if problems:
        raise CorpusError(
            "the input was not read without gaps: " + "; ".join(problems[:3]),
            remedy="set corpus.splittable to false and preprocess into another store",
        )
    check_tokens(plan, ordered)
    check_lists_agree(ordered)
    check_budget(plan, ordered)
    ledger = Ledger.total(receipt.ledger for receipt in ordered)
    shards = tuple(shard for receipt in ordered for shard in receipt.shards if shard.documents)
    manifest = Manifest(
        corpus=plan.config.corpus.name,
        config=fingerprint(plan.config),
        dtype="uint16" if plan.dtype == "uint16" else "int32",
        tokenizer=plan.tokenizer,
        chunking=plan.config.chunking,
        shards=shards,
        ledger=ledger,
    ).sealed()
    if not manifest.tokens("train"):
        raise CorpusError(
            f"corpus {manifest.corpus}: no document is left to train on: {ledger.records} records, "
            f"{ledger.records_dropped} dropped, {ledger.records_quarantined} quarantined {ledger.quarantined or ''}",
            remedy="check corpus.text_fields and corpus.format against the first records of a file",
        )
    return manifest


def _in_order(plan: Plan, receipts: dict[str, Receipt]) -> list[Receipt]:
    missing = [task.id for task in plan.tasks if task.id not in receipts]
    if missing:
        raise PlanError(
            f"{len(missing)} of {len(plan.tasks)} tasks have no receipt, the first is {missing[0]}",
            remedy="run the same preprocess command again: it does what is missing",
        )
    for receipt in receipts.values():
        if receipt.plan != plan.fingerprint:
            raise PlanError(
                f"the receipt of {receipt.task} belongs to another plan ({receipt.plan[:19]}…)",
                remedy="give another store, or run `lmbatch repair` on this one",
            )
    return [receipts[task.id] for task in plan.tasks]


def check_lists_agree(receipts: Sequence[Receipt]) -> None:
    """Raises PlanError unless all tasks dropped duplicates by the same lists: else some text might be kept nowhere."""
    for first, receipt in pairwise(receipts):
        if receipt.duplicates != first.duplicates:
            raise PlanError(
                f"{receipt.task} dropped duplicates by other lists than {first.task}",
                remedy="run `lmbatch repair` on the store",
            )


def conservation_problems(plan: Plan, receipts: Iterable[Receipt]) -> list[str]:
    """What contradicts that every byte of every file was read exactly once and every record is accounted for."""
    problems: list[str] = []
    by_path: dict[str, list[PieceReceipt]] = {}
    planned = {
        task.id: [(plan.files[piece.file].path, piece.start, piece.end) for piece in task.pieces] for task in plan.tasks
    }
    for receipt in receipts:
        if receipt.ledger.missing:
            problems.append(f"{receipt.task}: {receipt.ledger.missing} records are unaccounted for")
        if sum(shard.documents for shard in receipt.shards) != receipt.ledger.documents_out:
            problems.append(f"{receipt.task}: its shards hold another number of documents than its ledger")
        if _ranges(receipt.pieces) != planned.get(receipt.task):
            problems.append(f"{receipt.task}: its receipt is not of the byte ranges that were planned for it")
        if sum(piece.records for piece in receipt.pieces) != receipt.ledger.records:
            problems.append(f"{receipt.task}: its pieces hold another number of records than its ledger")
        for piece in receipt.pieces:
            by_path.setdefault(piece.path, []).append(piece)
    for file in plan.files:
        problems += _gaps(file, sorted(by_path.get(file.path, []), key=lambda piece: piece.start))
    return problems


def _ranges(pieces: Iterable[PieceReceipt]) -> list[tuple[str, int, int]]:
    return [(piece.path, piece.start, piece.end) for piece in pieces]


def _gaps(file: PlannedFile, pieces: Sequence[PieceReceipt]) -> list[str]:
    """Planned ranges must tile the file, and each reader must have stopped where the next one began."""
    problems: list[str] = []
    for left, right in pairwise(pieces):
        if left.end != right.start:
            problems.append(f"{file.path}: bytes {left.end} to {right.start} belong to no task")
        elif left.end_position != right.first_position:
            problems.append(
                f"{file.path}: one reader stopped at byte {left.end_position}, the next began at {right.first_position}"
            )
    if not pieces or pieces[0].start != 0:
        problems.append(f"{file.path}: its beginning belongs to no task")
    return problems


def check_tokens(plan: Plan, receipts: Iterable[Receipt]) -> None:
    """Raises CorpusError if a task's tokens were neither written nor thrown away by name."""
    for receipt in receipts:
        problem = token_problem(receipt.ledger, receipt.shards)
        if plan.config.chunking is not None:
            problem = problem or chunking_problem(receipt.ledger.tokens, receipt.shards, plan.config.chunking)
        if problem is not None:
            raise CorpusError(
                f"{receipt_key(receipt.task)}: {problem}",
                remedy="the receipt is damaged: run `lmbatch repair` on the store",
            )


def chunking_problem(ledger: TokenLedger | None, shards: Iterable[ShardEntry], chunking: ChunkingConfig) -> str | None:
    """What is missing of the sum over tokens where documents were cut, or wrong with the padding of packed ones."""
    if ledger is None:
        return "does not tell what became of the tokens"
    if not chunking.packs:
        return None
    padding = sum((shard.sequences or 0) * chunking.most - shard.tokens for shard in shards)
    if (ledger.padding or 0) == padding:
        return None
    return f"{ledger.padding} tokens of padding are told of, but its examples of {chunking.most} lack {padding}"


def check_budget(plan: Plan, receipts: Sequence[Receipt]) -> None:
    """Raises ErrorBudgetError, naming the worst tasks, if more was quarantined than the budget allows."""
    ledger = Ledger.total(receipt.ledger for receipt in receipts)
    budget = plan.config.budget
    allowed = max(budget.max_quarantined_records, int(budget.max_quarantined_fraction * ledger.records))
    if ledger.records_quarantined <= allowed:
        return
    count: Callable[[Receipt], int] = lambda receipt: receipt.ledger.records_quarantined  # noqa: E731
    worst = sorted(receipts, key=count, reverse=True)[:5]
    lines = [
        f"{', '.join(sorted({piece.path for piece in receipt.pieces})[:3])}: {count(receipt)}" for receipt in worst
    ]
    raise ErrorBudgetError(
        f"{ledger.records_quarantined} of {ledger.records} records were quarantined, {allowed} are allowed "
        f"({ledger.quarantined}); the worst: " + "; ".join(lines),
        remedy="read quarantine/*.jsonl in the store; mend the input, or raise budget.max_quarantined_fraction",
    )
