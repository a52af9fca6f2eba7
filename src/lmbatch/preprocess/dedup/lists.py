"""What the third stage takes from the second: which rows of its task go, and a guard that the rows are the same."""

from __future__ import annotations

import struct
import zlib
from functools import cached_property

import numpy as np

from lmbatch.corpus import Document, Rejected
from lmbatch.corpus.duplicates import DROP, REASONS, one_per_row, row_order
from lmbatch.corpus.duplicates.records import Records
from lmbatch.errors import CorpusError
from lmbatch.preprocess.dedup.blocks import read_block
from lmbatch.preprocess.dedup.receipts import CompareReceipt, SignReceipt, digest_of, parse_compare, parse_sign
from lmbatch.preprocess.dedup.stored import read_stage
from lmbatch.preprocess.dedup.units import compare_units, sign_units
from lmbatch.preprocess.plan import Plan, Task
from lmbatch.store import Store

_PLACE = struct.Struct("<IQ")
_EXCERPT = 100


class DropLists:
    """The lists of all partitions; their receipts are read when the first one is asked for, and once."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self._store, self._plan = store, plan
        self._numbers = {task.id: number for number, task in enumerate(plan.tasks)}

    @property
    def digest(self) -> str:
        """Of the lists as a whole: what a task's receipt says it has dropped by."""
        return digest_of(self._receipts)

    def sieve(self, task: Task) -> Sieve:
        """What a task's documents go through. Raises PlanError if the stages before are not done, StoreError for
        blocks that are damaged."""
        number = self._numbers[task.id]
        signed = read_stage(self._store, self._plan, [sign_units(self._plan)[number].id], parse_sign)[0]
        return Sieve(task, signed, self._drops(number))

    @cached_property
    def _receipts(self) -> tuple[CompareReceipt, ...]:
        return read_stage(self._store, self._plan, [unit.id for unit in compare_units(self._plan)], parse_compare)

    def _drops(self, number: int) -> Records:
        found = [np.empty(0, dtype=DROP)]
        for receipt in self._receipts:
            if number in receipt.tasks:
                found.append(read_block(self._store, receipt.payload, receipt.drops, receipt.tasks.index(number), DROP))
        drops = np.concatenate(found)
        kept = row_order(drops["kept_task"], drops["kept_row"])
        chosen: Records = drops[one_per_row(drops["row"].astype(np.uint64), kept, drops["reason"])]
        return chosen


class Sieve:
    """Lets documents through in the order of their rows, or names the reason why one goes."""

    def __init__(self, task: Task, signed: SignReceipt, drops: Records) -> None:
        self._task, self._signed = task, signed
        self._drops = {int(drop["row"]): drop for drop in drops}
        self._row = 0
        self._sum = 0

    def sift(self, piece: int, document: Document) -> Document | Rejected:
        """The next row: the document itself, or a Rejected with ``dropped=True``."""
        drop = self._drops.get(self._row)
        self._row += 1
        self._sum = zlib.crc32(_PLACE.pack(piece, document.position), self._sum)
        return document if drop is None else _rejected(document, drop)

    def finish(self) -> None:
        """Raises CorpusError if the documents were not the ones that were signed: rows would mean others."""
        if (self._row, self._sum) != (self._signed.documents, self._signed.region("places").crc32[0]):
            raise CorpusError(
                f"{self._task.id}: {self._row} documents survive reading and cleaning, {self._signed.documents} were "
                "signed to find duplicates, or others than these: their numbers no longer mean the same",
                remedy="run `lmbatch repair` on the store; if it comes to this again, please report it",
            )


def _rejected(document: Document, drop: Records) -> Rejected:
    reason = REASONS[int(drop["reason"])]
    said = "says the same as" if reason == "duplicate" else "says nearly the same as"
    return Rejected(
        path=document.path,
        position=document.position,
        length=len(document.text.encode("utf-8", "surrogatepass")),
        reason=reason,
        detail=f"{said} row {drop['kept_row']} of task-{drop['kept_task']:06d}",
        excerpt=document.text[:_EXCERPT],
        dropped=True,
    )
