"""Verification of the two stages: receipts, payloads, and that each stage stands on the one before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lmbatch.corpus.duplicates import BAND, DROP, EXACT, PLACE
from lmbatch.errors import LmbatchError, ObjectNotFoundError
from lmbatch.preprocess.dedup.receipts import (
    CompareReceipt,
    Region,
    SignReceipt,
    digest_of,
    parse_compare,
    parse_sign,
)
from lmbatch.preprocess.dedup.units import compare_units, sign_units
from lmbatch.preprocess.plan import Plan
from lmbatch.preprocess.task import receipt_key
from lmbatch.store import FileEntry, Receipt, Store

CheckFile = Callable[[Store, FileEntry], list[str]]
StageReceipt = SignReceipt | CompareReceipt


@dataclass(frozen=True)
class UnitCheck:
    """One unit of a stage: its receipt, if it can be trusted, and what is wrong."""

    id: str
    receipt: StageReceipt | None
    problems: list[str]


def check_units(store: Store, plan: Plan, check_file: CheckFile, workers: int) -> list[UnitCheck]:
    """Every unit of both stages, ``workers`` at a time; nothing without de-duplication."""
    with ThreadPoolExecutor(workers) as pool:
        signs = list(pool.map(lambda unit: _check(store, plan, unit.id, parse_sign, check_file), sign_units(plan)))
        compares = list(
            pool.map(lambda unit: _check(store, plan, unit.id, parse_compare, check_file), compare_units(plan))
        )
    signed = _digest(signs)
    for check in compares:
        receipt = check.receipt
        if isinstance(receipt, CompareReceipt) and signed is not None and receipt.signed != signed:
            check.problems.append(f"{receipt_key(check.id)}: compared other signatures than those that are there")
    return signs + compares


def check_lists(checks: list[UnitCheck], receipts: dict[str, Receipt]) -> Iterator[tuple[str, str]]:
    """Tasks that dropped duplicates by other lists than those that are there, with the problem."""
    lists = _digest([check for check in checks if check.id.startswith("compare-")])
    for task, receipt in receipts.items():
        if lists is not None and receipt.duplicates != lists:
            yield task, f"{receipt_key(task)}: dropped duplicates by other lists than those that are there"


def _digest(checks: list[UnitCheck]) -> str | None:
    """What the next stage must have stood on; None if that cannot be told."""
    receipts = [check.receipt for check in checks if check.receipt is not None]
    return digest_of(receipts) if checks and len(receipts) == len(checks) else None


def _check(
    store: Store, plan: Plan, unit: str, parse: Callable[[bytes, str], StageReceipt], check_file: CheckFile
) -> UnitCheck:
    key = receipt_key(unit)
    try:
        receipt = parse(store.read(key), store.where(key))
    except ObjectNotFoundError:
        return UnitCheck(unit, None, [f"{key}: there is no receipt, so it is not done"])
    except LmbatchError as error:
        return UnitCheck(unit, None, [error.message])
    if receipt.task != unit or receipt.plan != plan.fingerprint:
        return UnitCheck(unit, None, [f"{key}: belongs to {receipt.task} of plan {receipt.plan[:19]}…"])
    return UnitCheck(unit, receipt, [*check_file(store, receipt.payload), *_layout(key, receipt)])


def _layout(key: str, receipt: StageReceipt) -> list[str]:
    """The regions must tile the payload."""
    regions = receipt.regions if isinstance(receipt, SignReceipt) else (receipt.drops,)
    end = 0
    for region in regions:
        if region.offset != end or len(region.counts) != len(region.crc32):
            return [f"{key}: its region {region.kind} does not begin where the one before it ends"]
        end += sum(region.counts) * _size(region)
    if end != receipt.payload.size:
        return [f"{key}: its regions take {end} bytes, its payload has {receipt.payload.size}"]
    return []


def _size(region: Region) -> int:
    sizes = {"places": PLACE, "exact": EXACT, "drops": DROP}
    return sizes.get(region.kind, BAND).itemsize
