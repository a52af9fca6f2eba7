"""All signed tasks of a plan, as the second stage reads them: by kind and partition, a bounded number of rows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from lmbatch.corpus.duplicates import PLACE
from lmbatch.corpus.duplicates.records import Records, share_of
from lmbatch.preprocess.dedup.blocks import read_block
from lmbatch.preprocess.dedup.receipts import Origin, SignReceipt, digest_of, parse_sign
from lmbatch.preprocess.dedup.stored import read_stage
from lmbatch.preprocess.dedup.units import sign_units
from lmbatch.preprocess.plan import Plan
from lmbatch.store import Store

_READERS = 8  # blocks are small: latency, not bandwidth, is what is waited for
_AHEAD = 32  # blocks that are held before their rows are picked out
# Rows that are sorted at once: up to 130 bytes each while they are.
ROWS_AT_ONCE = 1 << 20

Gathered = tuple[Records, np.ndarray]  # records, and the number of each one's task


class SignedTasks:
    """The receipts of the first stage, all of them. Raises PlanError if one is missing or of another plan."""

    def __init__(self, store: Store, plan: Plan, most: int = ROWS_AT_ONCE) -> None:
        self._store, self._plan, self._most = store, plan, most
        self.receipts = read_stage(store, plan, [unit.id for unit in sign_units(plan)], parse_sign)
        self.digest = digest_of(self.receipts)

    def gather(self, kind: str, partition: int, dtype: np.dtype, key: str) -> Iterator[Gathered]:
        """All records of one kind and partition, in shares of about ``most`` rows; each holds all records of its keys.

        Rows are in the order of the plan. A partition that is larger is read once for each share.
        """
        total = sum(receipt.region(kind).counts[partition] for receipt in self.receipts)
        shares = max(1, -(-total // self._most))
        for share in range(shares):
            records, tasks = [np.empty(0, dtype=dtype)], [np.empty(0, dtype=np.uint32)]
            for number, block in self._blocks(kind, partition, dtype):
                mine = block if shares == 1 else block[share_of(block[key], shares) == share]
                records.append(mine)
                tasks.append(np.full(len(mine), number, dtype=np.uint32))
            yield np.concatenate(records), np.concatenate(tasks)

    def _blocks(self, kind: str, partition: int, dtype: np.dtype) -> Iterator[tuple[int, Records]]:
        def read(receipt: SignReceipt) -> Records:
            return read_block(self._store, receipt.payload, receipt.region(kind), partition, dtype)

        with ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, len(self.receipts), _AHEAD):
                yield from enumerate(pool.map(read, self.receipts[start : start + _AHEAD]), start=start)

    def origin(self, order: int) -> Origin:
        """Where a document came from, by its `row_order`."""
        number, row = order >> 32, order & 0xFFFF_FFFF
        receipt, task = self.receipts[number], self._plan.tasks[number]
        start = receipt.region("places").offset + row * PLACE.itemsize
        place = np.frombuffer(self._store.read(receipt.payload.key, start, start + PLACE.itemsize), dtype=PLACE)[0]
        path = self._plan.files[task.pieces[int(place["piece"])].file].path
        return Origin(task=task.id, row=row, path=path, position=int(place["position"]))
