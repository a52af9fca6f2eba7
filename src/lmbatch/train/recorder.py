"""Where a run's figures go: metrics.jsonl, samples.jsonl, TensorBoard, and the progress that people watch."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from lmbatch.config import TrainConfig
from lmbatch.train.folder import RunFolder
from lmbatch.train.metrics import METRICS_FILE, cut_after, evaluation_rows, last_step, read_metrics
from lmbatch.train.progress import reporter
from lmbatch.train.records import Record, RecordLog, read_records

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)
_TRAIN_SCALARS = ("loss", "lr", "grad_norm", "tokens_per_second", "mfu")
_EVALUATION_SCALARS = ("loss", "perplexity", "bits_per_byte")


def last_logged_step(folder: RunFolder) -> int:
    """The last step that an earlier attempt logged; 0 without one."""
    return last_step(read_metrics(folder.path))


class Recorder:
    """Writes the figures of one attempt, on the main process. ``step`` is where the attempt goes on.

    Rows after ``step`` are cut off first: those steps will be taken again.
    """

    def __init__(self, folder: RunFolder, config: TrainConfig, *, step: int, total: int) -> None:
        cut = cut_after(folder.path / METRICS_FILE, step)
        cut_after(folder.samples, step)
        if cut:
            log.info("%d rows after step %d are cut off: those steps are taken again", cut, step)
        rows = read_metrics(folder.path)
        self._evaluated = {row["step"] for row in evaluation_rows(rows)}
        self._sampled = {row["step"] for row in read_records(folder.samples)}
        self._metrics = RecordLog(folder.path / METRICS_FILE)
        self._samples = RecordLog(folder.samples)
        self._board = _board(folder, step) if config.tensorboard else None
        self._progress = reporter(step, total, config.log_every)

    def has_evaluation(self, step: int) -> bool:
        """Has this step been evaluated, by this attempt or an earlier one?"""
        return step in self._evaluated

    def has_samples(self, step: int) -> bool:
        """Have texts been generated at this step?"""
        return step in self._sampled

    def train(self, row: Record) -> None:
        """A step is done."""
        self._metrics.append({"kind": "train", **row})
        self._scalars("train", _TRAIN_SCALARS, row)
        self._progress.step(row)

    def evaluation(self, row: Record) -> None:
        """An evaluation is done."""
        self._metrics.append({"kind": "evaluation", **row})
        self._evaluated.add(row["step"])
        self._scalars("validation", _EVALUATION_SCALARS, row)
        log.info(
            "step %d: validation loss %.4f, perplexity %.2f, %.4f bits per byte",
            row["step"], row["loss"], row["perplexity"], row["bits_per_byte"],
        )  # fmt: skip

    def samples(self, step: int, prompts: tuple[str, ...], texts: list[str]) -> None:
        """Texts were generated."""
        for prompt, text in zip(prompts, texts, strict=True):
            self._samples.append({"step": step, "prompt": prompt, "text": text})
            log.info("step %d: %s", step, text)
            if self._board is not None:
                self._board.add_text(f"samples/{prompt}", text, step)
        self._sampled.add(step)

    def sync(self) -> None:
        """Force the rows to the disk, so that none before a committed checkpoint can be missing."""
        self._metrics.sync()
        self._samples.sync()

    def close(self) -> None:
        """Close everything."""
        self._progress.close()
        self._metrics.close()
        self._samples.close()
        if self._board is not None:
            self._board.close()

    def _scalars(self, group: str, names: tuple[str, ...], row: Record) -> None:
        if self._board is None:
            return
        for name in names:
            if row[name] is not None:
                self._board.add_scalar(f"{group}/{name}", row[name], row["step"])


def _board(folder: RunFolder, step: int) -> SummaryWriter | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.warning("tensorboard is not installed: no events are written (pip install tensorboard)")
        return None
    arguments: dict[str, Any] = {"purge_step": step + 1} if step else {}
    return SummaryWriter(str(folder.tensorboard), **arguments)
