"""The one training loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from transformers import PreTrainedModel

from lmbatch.checkpoint import CheckpointFacts
from lmbatch.config import EvaluateConfig, SamplesConfig, TrainConfig
from lmbatch.errors import StopRequested
from lmbatch.loader import BatchLoader
from lmbatch.train.due import completes_epoch, due
from lmbatch.train.engine import Engine, Gradients
from lmbatch.train.evaluate import Validation, evaluate
from lmbatch.train.guards import Finding
from lmbatch.train.recorder import Recorder
from lmbatch.train.records import Record
from lmbatch.train.saver import Saver
from lmbatch.train.schedule import lr_at
from lmbatch.train.sentry import Sentry
from lmbatch.train.session import Standing
from lmbatch.train.stop import StopFlag
from lmbatch.train.watchdog import Watchdog

log = logging.getLogger(__name__)


def finite(value: float) -> float | None:
    """The number as JSON can hold it."""
    return value if math.isfinite(value) else None


@dataclass(slots=True)
class Position:
    """How much of the data is consumed: it decides the next batch."""

    step: int
    samples: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the loop asks of its surroundings."""

    facts: Callable[[Position], CheckpointFacts]  # of a checkpoint that is taken there
    first_step: Callable[[], None]
    generate: Callable[[PreTrainedModel, str], str] | None  # a text from a prompt, on the main process


@dataclass(slots=True)
class Loop:
    """Steps, and what is due after a step: a row of metrics, a checkpoint, an evaluation, sample texts.

    Whatever is due is looked at again when an attempt resumes, so an interruption between a checkpoint and the
    evaluation of the same step leaves no gap.
    """

    config: TrainConfig
    engine: Engine
    loader: BatchLoader
    validation: Validation | None  # None: no evaluation
    recorder: Recorder | None  # on the main process
    hooks: Hooks
    stop: StopFlag
    standing: Standing
    position: Position
    total: int
    watchdog: Watchdog
    sentry: Sentry
    saver: Saver
    mfu_of_speed: float | None  # MFU at one token per second; None where the peak is not known
    copied: int = 0  # the step of the newest checkpoint that is committed, or on its way to be
    owed: bool = False  # a checkpoint that was due and waits

    def run(self) -> None:
        """Train to the end, or until a stop is asked for: then save and raise StopRequested.

        Raises NonFiniteLossError or LossSpikeError before a batch that the guards stop could change anything, and what
        a save or an upload in the background has failed with.
        """
        try:
            self._after_step()
            while self.position.step < self.total:
                self._step()
                self._after_step()
            self._finish_saving()
        except StopRequested:
            self._save()
            self._finish_saving()
            raise

    def _step(self) -> None:
        start = time.monotonic()
        number = self.position.step
        self.watchdog.beat(f"the data of step {number + 1}")
        step = next(self.loader)
        self.watchdog.beat(f"step {number + 1}")
        gradients = self.engine.gradients(step, number=number, stop=self.stop)
        found = self.sentry.examine(step, number + 1, gradients)
        lr = lr_at(number, self.config.optimizer, self.config.schedule, self.total)
        if found is not None and found.action == "skip":
            self.engine.skip(lr)
        else:
            self.engine.apply(lr)
        self._advance(gradients)
        self._record(self._row(gradients, found, step.first_sample, lr, time.monotonic() - start))
        if number == self.standing.resumed_from:
            self.hooks.first_step()
        # Several processes have agreed together with the loss; one alone asks again at the boundary itself.
        if gradients.stop or (self.engine.ranks.world == 1 and self.stop.reason is not None):
            self.stop.request("another process")
            self.stop.check()

    def _advance(self, gradients: Gradients) -> None:
        size = self.config.batch.size
        self.position.step += 1
        self.position.samples += size
        self.position.tokens += gradients.tokens
        self.standing.step = self.position.step
        if math.isfinite(gradients.loss):
            self.standing.loss = gradients.loss

    def _row(self, gradients: Gradients, found: Finding | None, first_sample: int, lr: float, seconds: float) -> Record:
        speed = gradients.tokens / seconds
        return {
            "step": self.position.step,
            "loss": finite(gradients.loss),
            "lr": lr,
            "grad_norm": finite(gradients.grad_norm),
            "skipped": found.why if found is not None and found.action == "skip" else None,
            "spike": found.why if found is not None and found.action == "warn" else None,
            "samples": [first_sample, first_sample + self.config.batch.size],
            "data": gradients.data,
            "tokens": gradients.tokens,
            "seconds": seconds,
            "tokens_per_second": speed,
            "mfu": None if self.mfu_of_speed is None else speed * self.mfu_of_speed,
        }

    def _record(self, row: Record) -> None:
        self.sentry.note(row)
        if self.recorder is not None:
            self.recorder.train(row)

    def _after_step(self) -> None:
        """Save, evaluate, generate, if it is due; every process takes the same way through here.

        A checkpoint waits until an update was applied again: of several left out, the weights may be the reason.
        """
        step = self.position.step
        self.owed |= step > 0 and (due(self.config.save.every, step, self.total) or self._completes_epoch(step))
        if self.owed and (step == self.total or not self.sentry.in_doubt):
            if step == self.total or step <= self.copied or not self.saver.leaves_out(step):
                self._save()
            self.owed = False
        self._evaluate(step, self.config.evaluate)
        self._sample(step, self.config.samples)

    def _completes_epoch(self, step: int) -> bool:
        size = self.config.batch.size
        return self.config.save.every_epoch and completes_epoch(step, size, self.loader.samples_per_epoch)

    def _save(self) -> None:
        """Save, unless nothing new was done since the last time."""
        if self.position.step > self.copied:
            since = time.monotonic()
            self.watchdog.beat(f"the save of step {self.position.step}")
            self.sentry.check_weights(self.position.step)
            if self.recorder is not None:
                self.recorder.sync()
            self.saver.save(self.hooks.facts(self.position), since)
            self.copied = self.position.step

    def _finish_saving(self) -> None:
        self.watchdog.beat("the end of the newest save")
        self.saver.finish()

    def _evaluate(self, step: int, config: EvaluateConfig) -> None:
        if self.validation is None or not due(config.every, step, self.total):
            return
        done = self.recorder is not None and self.recorder.has_evaluation(step)
        if not self.engine.ranks.from_main(done):
            values = evaluate(self.validation, self.engine, check=self._agreed_check)
            self.sentry.check_evaluation(step, values["loss"])
            if self.recorder is not None:
                self.recorder.evaluation({"step": step, **values})

    def _sample(self, step: int, config: SamplesConfig) -> None:
        if not config.prompts or not due(config.every, step, self.total):
            return
        done = self.recorder is not None and self.recorder.has_samples(step)
        if not self.engine.ranks.from_main(done or self.hooks.generate is None):
            texts, model = [], self.engine.whole_model()
            for prompt in config.prompts:
                self._agreed_check()
                if self.recorder is not None and self.hooks.generate is not None:
                    texts.append(self.hooks.generate(model, prompt))
            if self.recorder is not None:
                self.recorder.samples(step, config.prompts, texts)

    def _agreed_check(self) -> None:
        self.watchdog.beat(f"evaluation or samples after step {self.position.step}")
        if self.engine.ranks.any(self.stop.reason is not None):
            self.stop.request("another process")
            self.stop.check()
