"""What was predicted for a run beside what happened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from lmbatch.checkpoint import CheckpointSummary
from lmbatch.estimate.prediction import Prediction
from lmbatch.preprocess.estimate import Row
from lmbatch.train.attempts import Attempt
from lmbatch.train.metrics import save_rows, training_rows
from lmbatch.train.planning import read_prediction
from lmbatch.train.records import Record

_WARM_UP = 2  # first steps, which are slower than those that follow


def foretold_rows(
    run: Path, attempts: Sequence[Attempt], rows: list[Record], checkpoints: Sequence[CheckpointSummary]
) -> tuple[Row, ...]:
    """A row for each figure that is known of both; none without a prediction, or before there is anything."""
    told = read_prediction(run)
    return () if told is None else tuple(_rows(told, attempts, rows, checkpoints))


def _rows(
    told: Prediction, attempts: Sequence[Attempt], rows: list[Record], checkpoints: Sequence[CheckpointSummary]
) -> Iterator[Row]:
    yield from _speed(told, training_rows(rows))
    whole = [item.bytes for item in checkpoints if item.bytes]
    if whole:
        yield _row("checkpoint", "B", told.saving.bytes, whole[-1])
    saves = save_rows(rows)
    if saves:
        yield _row("a save", "s", told.saving.seconds, median(row["write_seconds"] for row in saves))
        stalls = [row["stall_seconds"] - row["waited_seconds"] for row in saves]
        yield _row("training waits for a save", "s", told.saving.stall, median(stalls))
    uploads = [row["upload_seconds"] for row in rows if row["kind"] == "upload"]
    if uploads:
        yield _row("an upload", "s", told.saving.upload_seconds, median(uploads))
    yield from _memory(told, attempts)
    yield from _hours(told, attempts, rows)


def _speed(told: Prediction, steps: list[Record]) -> Iterator[Row]:
    speeds = [row["tokens_per_second"] for row in steps[_WARM_UP:]]
    if told.tokens_per_second is not None and speeds:
        yield _row("tokens/s", "", told.tokens_per_second, median(speeds))


def _memory(told: Prediction, attempts: Sequence[Attempt]) -> Iterator[Row]:
    """On a GPU what its tensors took; on a CPU all that the main process had, Python and libraries included."""
    devices = [attempt.peak_device_bytes for attempt in attempts if attempt.peak_device_bytes is not None]
    hosts = [attempt.peak_host_bytes for attempt in attempts if attempt.peak_host_bytes is not None]
    if devices:
        yield _row("peak memory of tensors", "B", told.memory.tensors, max(devices))
    elif hosts:
        yield _row("peak memory of a process", "B", told.process_memory, max(hosts))


def _hours(told: Prediction, attempts: Sequence[Attempt], rows: list[Record]) -> Iterator[Row]:
    """Steps and what they waited for saves: of a run that is done. Starts and evaluations are not in it."""
    if told.seconds is None or attempts[-1].why != "finished":
        return
    spent = sum(row["seconds"] for row in training_rows(rows)) + sum(row["stall_seconds"] for row in save_rows(rows))
    yield _row("time of steps and saves", "s", told.seconds, spent)


def _row(what: str, unit: str, predicted: float, happened: float) -> Row:
    return Row(what=what, unit=unit, predicted=predicted, low=predicted, high=predicted, happened=happened)
