"""Where a run's figures go: metrics.jsonl, samples.jsonl, the trackers, and the progress that people watch."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from lmbatch.config import TrainConfig
from lmbatch.train.folder import RunFolder
from lmbatch.train.metrics import (
    METRICS_FILE,
    cut_after,
    evaluation_rows,
    last_step,
    read_metrics,
    training_rows,
    validation_losses,
)
from lmbatch.train.progress import reporter
from lmbatch.train.records import Record, RecordLog, read_records
from lmbatch.train.tracking import Curves

log = logging.getLogger(__name__)


def last_logged_step(folder: RunFolder) -> int:
    """The last step that an earlier attempt logged; 0 without one."""
    return last_step(read_metrics(folder.path))


class Recorder:
    """Writes the figures of one attempt, on the main process. ``step`` is where the attempt goes on.

    Rows after ``step`` are cut off first: those steps will be taken again. ``losses`` are those of the
    evaluations, by step.
    """

    def __init__(self, folder: RunFolder, config: TrainConfig, *, step: int, total: int) -> None:
        logged = _last_steps(folder)
        cut = cut_after(folder.path / METRICS_FILE, step)
        cut_after(folder.samples, step)
        if cut:
            log.info("%d rows after step %d are cut off: those steps are taken again", cut, step)
        rows = read_metrics(folder.path)
        self.losses = validation_losses(rows)
        self._sampled = {row["step"] for row in read_records(folder.samples)}
        self._metrics = RecordLog(folder.path / METRICS_FILE)
        self._samples = RecordLog(folder.samples)
        self._curves = Curves(folder, config, step=step, logged=logged)
        self._progress = reporter(step, total, config.log_every)

    def has_evaluation(self, step: int) -> bool:
        """Has this step been evaluated, by this attempt or an earlier one?"""
        return step in self.losses

    def has_samples(self, step: int) -> bool:
        """Have texts been generated at this step?"""
        return step in self._sampled

    def train(self, row: Record) -> None:
        """A step is done."""
        self._metrics.append({"kind": "train", **row})
        self._curves.train(row)
        self._progress.step(row)

    def evaluation(self, row: Record) -> None:
        """An evaluation is done."""
        self._metrics.append({"kind": "evaluation", **row})
        self.losses[row["step"]] = row["loss"]
        self._curves.evaluation(row)
        bits = f", {row['bits_per_byte']:.4f} bits per byte" if row["bits_per_byte"] is not None else ""
        log.info("step %d: validation loss %.4f, perplexity %.2f%s", row["step"], row["loss"], row["perplexity"], bits)

    def note(self, kind: str, row: Record) -> None:
        """Something else was done, in whatever thread: a save or an upload."""
        self._metrics.append({"kind": kind, **row})

    def samples(self, step: int, prompts: tuple[str, ...], texts: list[str]) -> None:
        """Texts were generated."""
        for prompt, text in zip(prompts, texts, strict=True):
            self._samples.append({"step": step, "prompt": prompt, "text": text})
            log.info("step %d: %s", step, text)
        self._curves.samples(step, dict(zip(prompts, texts, strict=True)))
        self._sampled.add(step)

    def sync(self) -> None:
        """Force the rows to the disk, so that none before a committed checkpoint can be missing."""
        self._metrics.sync()
        self._samples.sync()
        self._curves.flush()

    def close(self) -> None:
        """Close everything."""
        self._progress.close()
        self._metrics.close()
        self._samples.close()
        self._curves.close()


def _last_steps(folder: RunFolder) -> dict[str, int]:
    """The last step that earlier attempts logged of each group; a group without one is left out."""
    rows = read_metrics(folder.path)
    groups: dict[str, Iterable[Record]] = {
        "train": training_rows(rows), "validation": evaluation_rows(rows), "samples": read_records(folder.samples),
    }  # fmt: skip
    steps = {group: [row["step"] for row in found] for group, found in groups.items()}
    return {group: max(found) for group, found in steps.items() if found}
