"""First stage: what the documents of one task are compared by, laid out by partition."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lmbatch.corpus import Document, build_cleaner
from lmbatch.corpus.duplicates import BAND, EXACT, PLACE, Signer, partition_of
from lmbatch.corpus.duplicates.records import Records
from lmbatch.preprocess.dedup.blocks import store_payload, write_region
from lmbatch.preprocess.dedup.receipts import Region, SignReceipt
from lmbatch.preprocess.dedup.units import SignTask
from lmbatch.preprocess.live import LiveTask
from lmbatch.preprocess.plan import Plan, check_libraries
from lmbatch.preprocess.reading import files_of, read_cleaned
from lmbatch.preprocess.task import check_unchanged, peak_memory, receipt_key
from lmbatch.store import PieceReceipt, Store, Traffic, to_json

_AT_ONCE = 4096  # documents whose records are held before they go to the spool


def run_sign(store: Store, raw: Store, plan: Plan, unit: SignTask, spool: Path, live: LiveTask) -> SignReceipt | None:
    """Sign one task's documents, unless the receipt is there already (then None); ``live`` is told how far it is.

    Raises InputChangedError, PlanError for other libraries than the plan's, and any store or corpus error.
    """
    if store.exists(receipt_key(unit.id)):
        return None
    live.begin(unit.id, unit.input_bytes)
    clock, cpu = time.monotonic(), time.process_time()
    check_libraries(plan)
    for file in files_of(plan, unit.task):
        check_unchanged(raw, file)
    spool.mkdir(parents=True, exist_ok=True)
    seen: list[PieceReceipt] = []
    with TemporaryDirectory(prefix=f"{unit.id}-", dir=spool) as folder:
        rows = RowFiles(Path(folder), plan)
        _sign(raw, plan, unit, rows, seen, live)
        payload, regions = rows.lay_out()
        for file in files_of(plan, unit.task):
            check_unchanged(raw, file)
        entry = store_payload(store, unit.id, payload)
    receipt = SignReceipt(
        task=unit.id,
        plan=plan.fingerprint,
        attempt=uuid.uuid4().hex,
        pieces=tuple(seen),
        documents=rows.documents,
        payload=entry,
        regions=regions,
        seconds=time.monotonic() - clock,
        cpu_seconds=time.process_time() - cpu,
        peak_memory_bytes=peak_memory(),
        input_bytes=unit.input_bytes,
        traffic=store.traffic.take() + Traffic(put=1),  # its own publishing, as in the receipt of a task
        input_traffic=raw.traffic.take(),
    )
    store.publish(receipt_key(unit.id), to_json(receipt))
    store.traffic.take()
    return receipt


def _sign(raw: Store, plan: Plan, unit: SignTask, rows: RowFiles, seen: list[PieceReceipt], live: LiveTask) -> None:
    clean = build_cleaner(plan.config.cleaning)
    with ExitStack() as files:
        rows.open(files)
        for piece, _, record in read_cleaned(raw, plan, unit.task, clean, seen, live):
            if isinstance(record, Document):
                rows.add(piece, record)
        rows.flush()


class RowFiles:
    """Records in the order of their rows, one spool file per kind; memory holds a few thousand rows.

    Laying them out takes one kind at a time into memory: 20 bytes a document.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        assert plan.config.dedup is not None
        assert plan.partitions is not None
        self._folder, self._config, self._partitions = folder, plan.config.dedup, plan.partitions
        self._signer = Signer(self._config)
        near = self._config.near
        bands = [f"band-{number:02d}" for number in range(near.bands if near else 0)]
        self._kinds = ["places", *(["exact"] if self._config.exact else []), *bands]
        self._held: list[tuple[int, int, int, int]] = []
        self._bands: list[np.ndarray] = []
        self.documents = 0

    def open(self, files: ExitStack) -> None:
        """Open the spool files, for as long as ``files`` lasts."""
        self._files = {kind: files.enter_context((self._folder / kind).open("wb")) for kind in self._kinds}

    def add(self, piece: int, document: Document) -> None:
        """The next row."""
        signs = self._signer.sign(document.text)
        self._held.append((piece, document.position, signs.high, signs.low))
        self._bands.append(signs.bands)
        self.documents += 1
        if len(self._held) >= _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Move what is held to the spool."""
        if not self._held:
            return
        piece, position, high, low = (np.array(column, dtype=np.uint64) for column in zip(*self._held, strict=True))
        row = np.arange(self.documents - len(self._held), self.documents, dtype=np.uint32)
        self._spool("places", _records(PLACE, piece=piece, position=position))
        if "exact" in self._files:
            self._spool("exact", _records(EXACT, high=high, low=low, row=row))
        for number, keys in enumerate(np.array(self._bands).T):
            content = low & np.uint64(0xFFFF_FFFF)
            self._spool(f"band-{number:02d}", _records(BAND, key=keys, content=content, row=row))
        self._held, self._bands = [], []

    def lay_out(self) -> tuple[Path, tuple[Region, ...]]:
        """The payload as a local file, and where its blocks lie."""
        path = self._folder / "payload"
        with path.open("wb") as out:
            regions = tuple(write_region(out, kind, self._blocks(kind)) for kind in self._kinds)
        return path, regions

    def _blocks(self, kind: str) -> Iterator[Records]:
        if kind == "places":
            yield np.fromfile(self._folder / kind, dtype=PLACE)
            return
        dtype, key = (EXACT, "high") if kind == "exact" else (BAND, "key")
        records = np.fromfile(self._folder / kind, dtype=dtype)
        partition = partition_of(records[key], self._partitions)
        sorting = np.argsort(partition, kind="stable")
        ends = np.cumsum(np.bincount(partition, minlength=self._partitions))
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            yield records[sorting[start:end]]

    def _spool(self, kind: str, records: Records) -> None:
        self._files[kind].write(records.tobytes())


def _records(dtype: np.dtype, **columns: np.ndarray) -> Records:
    records = np.empty(len(next(iter(columns.values()))), dtype=dtype)
    for name, values in columns.items():
        records[name] = values
    return records
