"""The receipts of a whole stage, which the next one stands on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from lmbatch.errors import PlanError
from lmbatch.preprocess.dedup.receipts import CompareReceipt, SignReceipt
from lmbatch.preprocess.merge import read_all
from lmbatch.preprocess.plan import Plan
from lmbatch.store import Store

ReceiptT = TypeVar("ReceiptT", SignReceipt, CompareReceipt)


def read_stage(
    store: Store, plan: Plan, ids: Sequence[str], parse: Callable[[bytes, str], ReceiptT]
) -> tuple[ReceiptT, ...]:
    """The receipts of all units of a stage, in order. Raises PlanError if one is missing or of another plan."""
    found = read_all(store, ids, parse)
    missing = [unit for unit in ids if unit not in found]
    if missing:
        raise PlanError(
            f"{store.uri}: {len(missing)} of {len(ids)} receipts of an earlier stage are missing, the first is that of "
            f"{missing[0]}",
            remedy="run the same preprocess command again: it does what is missing, stage by stage",
        )
    for receipt in found.values():
        if receipt.plan != plan.fingerprint:
            raise PlanError(
                f"the receipt of {receipt.task} belongs to another plan ({receipt.plan[:19]}…)",
                remedy="give another store, or run `lmbatch repair` on this one",
            )
    return tuple(found[unit] for unit in ids)
