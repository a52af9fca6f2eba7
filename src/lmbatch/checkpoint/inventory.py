"""What lies in a store of checkpoints, by one listing and the receipts: the run folder and its mirror alike.

No payload is read: a checkpoint counts as whole if each of its files has its full size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lmbatch.checkpoint.layout import PREFIX, is_attempt, receipt_key, step_of
from lmbatch.checkpoint.pins import pin_key
from lmbatch.checkpoint.receipt import CheckpointReceipt, Problem, parse_receipt
from lmbatch.checkpoint.rule import Evidence
from lmbatch.store import Store

TORN = Problem("torn", "there is no receipt: the save was interrupted before its commit")


@dataclass(frozen=True, slots=True)
class Inventory:
    """``sizes``: bytes of every object below ``checkpoints/``, by key; ``receipts``: what the receipts say, by step."""

    sizes: Mapping[str, int]
    receipts: Mapping[int, CheckpointReceipt | Problem]

    @classmethod
    def of(cls, store: Store) -> Inventory:
        """List a store and read its receipts. Raises StoreError."""
        sizes = {info.key: info.size for info in store.list(f"{PREFIX}/")}
        steps = sorted({step for key in sizes if (step := owner_of(key)) is not None})
        keys = [receipt_key(step) for step in steps if receipt_key(step) in sizes]
        data = dict(zip(keys, store.read_many(keys), strict=True))
        found: dict[int, CheckpointReceipt | Problem] = {}
        for step in steps:
            receipt = data.get(receipt_key(step))
            if receipt is not None:
                found[step] = parse_receipt(receipt, step)
            elif any(owner_of(key) == step and _is_payload(key) for key in sizes):
                found[step] = TORN
        return cls(sizes, found)

    def pinned(self, step: int) -> bool:
        """Is there a pin beside the receipt?"""
        return pin_key(step) in self.sizes

    def gaps(self, receipt: CheckpointReceipt) -> list[str]:
        """The files of a checkpoint that are missing or have another size, a line each."""
        return [
            f"{file.key}: is missing" if size is None else f"{file.key}: has {size} bytes, its receipt says {file.size}"
            for file in receipt.files
            if (size := self.sizes.get(file.key)) != file.size
        ]

    def whole(self, receipt: CheckpointReceipt) -> bool:
        """Is every file there in its full size?"""
        return not self.gaps(receipt)

    def keys_of(self, step: int) -> list[str]:
        """Every object of a step, its receipt first."""
        keys = [key for key in self.sizes if owner_of(key) == step]
        return sorted(keys, key=lambda key: (key != receipt_key(step), key))

    def evidence(
        self, losses: Mapping[int, float], newest: int, check: Callable[[CheckpointReceipt], bool]
    ) -> Iterator[Evidence]:
        """What the rule wants to know of each step, newest first.

        ``check`` says of a whole checkpoint whether its bytes are right. It is asked until ``newest`` are, which is
        all that "never fewer than two valid ones" needs: reading every byte of every one that is kept would take hours.
        """
        right = 0
        for step in sorted(self.receipts, reverse=True):
            receipt = self.receipts[step]
            valid = isinstance(receipt, CheckpointReceipt) and self.whole(receipt)
            if valid and right < newest:
                assert isinstance(receipt, CheckpointReceipt)
                valid = check(receipt)
            right += valid
            yield Evidence(step, valid, losses.get(step), self.pinned(step))


def owner_of(key: str) -> int | None:
    """The step whose folder an object lies in."""
    parts = key.split("/")
    return step_of(parts[1]) if len(parts) > 2 and parts[0] == PREFIX else None


def _is_payload(key: str) -> bool:
    return is_attempt(key.split("/")[2].removesuffix(".lock"))
