"""The process that probes: the real tasks of preprocessing over small ranges, into a folder that is thrown away.

A JSON request comes in on stdin; a JSON object a line goes out on stdout: ``ready`` when a worker would begin its first
task, then a receipt for each range, as the real work would leave it. A process of its own, so that its memory is too;
``work`` says whether it tokenizes or finds duplicates.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import submitit.core.submission  # noqa: F401  (a worker is started through it, so it is part of the start)

from lmbatch.corpus import Piece, Seen, read_piece
from lmbatch.corpus.stream import compression_of
from lmbatch.errors import LmbatchError
from lmbatch.launch.estimate.ranges import ProbeRange
from lmbatch.preprocess import LiveTask, Plan, PlannedPiece, Task, open_raw, run_task
from lmbatch.preprocess.dedup import (
    CompareReceipt,
    SignedTasks,
    SignReceipt,
    SignTask,
    compare_units,
    run_compare,
    run_sign,
)
from lmbatch.store import LocalStore, Receipt, Store
from lmbatch.tokens import Encoder, load_tokenizer


def main() -> None:
    """Read the request, probe, answer."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as a worker does
    request = json.loads(sys.stdin.read())
    try:
        plan = Plan.model_validate(request["plan"])
        ranges = [parse_range(value) for value in request["ranges"]]
        folder, seconds = Path(request["folder"]), float(request["seconds"])
        if request["work"] == "dedup":
            _answer({"ready": True})
            for kind, stage_receipt in probe_dedup(plan, ranges, folder, seconds):
                _answer({kind: stage_receipt.model_dump(mode="json")})
            return
        encoder = Encoder(load_tokenizer(request["tokenizer"], request["eod"]), plan.config.tokenizer.engine)
        _answer({"ready": True})
        for receipt in probe_ranges(plan, encoder, ranges, folder, seconds):
            _answer({"receipt": receipt.model_dump(mode="json")})
    except LmbatchError as error:
        _answer({"error": error.message, "remedy": error.remedy})


def probe_ranges(
    plan: Plan, encoder: Encoder, ranges: Sequence[ProbeRange], folder: Path, seconds: float
) -> Iterator[Receipt]:
    """The receipts of ranges; once ``seconds`` have passed no further one is begun, after the first three."""
    raw, store = open_raw(plan), LocalStore(folder / "store")
    begun = time.monotonic()
    for number, probe in enumerate(ranges):
        if number >= 3 and time.monotonic() - begun > seconds:
            return
        part, task = _task_of(plan, raw, probe, f"probe-{number:06d}")
        receipt = run_task(store, raw, part, task, encoder, folder / "spool")
        if receipt is not None:
            yield receipt


def probe_dedup(
    plan: Plan, ranges: Sequence[ProbeRange], folder: Path, seconds: float
) -> Iterator[tuple[str, SignReceipt | CompareReceipt]]:
    """Sign and compare the first range twice (once to get warm) and then the others, each time by themselves.

    Gives ``signed`` and ``compared`` receipts; once ``seconds`` have passed no further range is signed.
    """
    yield from _sign_and_compare(plan, ranges[:1], folder / "dedup-warm", seconds)
    yield from _sign_and_compare(plan, ranges[:1], folder / "dedup-first", seconds)
    yield from _sign_and_compare(plan, ranges[1:], folder / "dedup-all", seconds, forget=True)


def _sign_and_compare(
    plan: Plan, ranges: Sequence[ProbeRange], folder: Path, seconds: float, *, forget: bool = False
) -> Iterator[tuple[str, SignReceipt | CompareReceipt]]:
    """``forget``: the peak of signing before comparing, which another process would do."""
    raw, store, spool = open_raw(plan), LocalStore(folder / "store"), folder / "spool"
    begun, tasks = time.monotonic(), list[Task]()
    for number, probe in enumerate(ranges):
        if tasks and time.monotonic() - begun > seconds:
            break
        part, task = _task_of(plan, raw, probe, f"task-{number:06d}")
        tasks.append(task)
        unit = SignTask(f"sign-{number:06d}", number, task)
        signed = run_sign(store, raw, part.model_copy(update={"partitions": 1}), unit, spool, LiveTask())
        assert signed is not None
        yield "signed", signed
    if forget:
        _forget_peak()
    whole = plan.model_copy(update={"tasks": tuple(tasks), "partitions": 1})
    compared = run_compare(store, whole, compare_units(whole)[0], SignedTasks(store, whole), spool, LiveTask())
    assert compared is not None
    yield "compared", compared


def _forget_peak() -> None:
    """The peak of memory begins anew (proc(5), clear_refs); where that is not allowed it stays too high."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _task_of(plan: Plan, raw: Store, probe: ProbeRange, name: str) -> tuple[Plan, Task]:
    if probe.limit is None or sum(piece.bytes for piece in probe.pieces) <= probe.limit:
        return plan, Task(id=name, pieces=probe.pieces)
    piece = probe.pieces[0]
    records, size = count_records(plan, raw, piece, probe.limit)
    corpus = plan.config.corpus.model_copy(update={"first_records": records})
    config = plan.config.model_copy(update={"corpus": corpus})
    return plan.model_copy(update={"config": config}), Task(id=name, pieces=(piece.model_copy(update={"bytes": size}),))


def count_records(plan: Plan, raw: Store, piece: PlannedPiece, limit: int) -> tuple[int, int]:
    """How many records stand in the first ``limit`` bytes of a piece that cannot be cut, and in how many really."""
    file, corpus = plan.files[piece.file], plan.config.corpus
    before, seen, records, size, last = raw.traffic.total().bytes_down, Seen(), 0, 0, 0
    by_traffic = compression_of(file.path) != "none" or corpus.format == "dataset"
    for _ in read_piece(raw, corpus, Piece(file.path, piece.start, piece.end), file.probe, seen):
        came = raw.traffic.total().bytes_down - before
        # Compressed bytes come in blocks; what is read of one has all been seen when the next one comes.
        if by_traffic and last and came > last:
            size = last
        elif not by_traffic:
            size = _passed(seen.end_position - seen.first_position, piece, file.probe.row_group_rows)
        last = came
        if records and size >= limit:
            return records, min(size, piece.bytes)
        records += 1
    return max(1, records), piece.bytes


def _passed(positions: int, piece: PlannedPiece, rows: Sequence[int]) -> int:
    """Bytes of input from positions, which are rows in Parquet."""
    inside = sum(rows[piece.start : piece.end])
    return positions * piece.bytes // inside if inside else positions


def parse_range(value: dict[str, Any]) -> ProbeRange:
    """A range of the request."""
    pieces = tuple(PlannedPiece.model_validate(piece) for piece in value["pieces"])
    return ProbeRange(pieces, value["limit"])


def _answer(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
