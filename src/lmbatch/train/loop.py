"""The one training loop."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from transformers import PreTrainedModel

from lmbatch.checkpoint import CheckpointFacts
from lmbatch.config import EvaluateConfig, SamplesConfig, TrainConfig
from lmbatch.errors import StopRequested
from lmbatch.loader import BatchLoader, Step
from lmbatch.train.due import completes_epoch, due
from lmbatch.train.engine import Engine
from lmbatch.train.evaluate import Validation, evaluate
from lmbatch.train.figures import Figures, Gradients
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


@dataclass(frozen=True, slots=True)
class Flight:
    """A step that was begun and not yet looked at. ``number`` counts from 0; ``start`` is a monotonic clock's."""

    step: Step
    number: int
    start: float
    lr: float
    figures: Figures


@dataclass(slots=True)
class Loop:
    """Steps, and what is due after a step: a row of metrics, a checkpoint, an evaluation, sample texts.

    An engine that leaves a bad update out by itself is not waited for: its figures are looked at when the next step is
    under way, unless something is due that needs them. ``position`` is that of the last step that was looked at.

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
    flights: deque[Flight] = field(default_factory=deque)
    looked: float = 0.0  # when the last step was looked at
    asked: bool = False  # did any process ask for a stop in it?

    def run(self) -> None:
        """Train to the end, or until a stop is asked for: then save and raise StopRequested.

        Raises NonFiniteLossError or LossSpikeError before a batch that the guards stop could change anything, and what
        a save or an upload in the background has failed with.
        """
        try:
            self._after_step()
            while self.position.step + len(self.flights) < self.total:
                self._begin()
                while len(self.flights) > self._may_wait():
                    self._finish(self.flights.popleft())
                    self._check_stop()
                    self._after_step()
            self._finish_saving()
        except StopRequested:
            while self.flights:
                self._finish(self.flights.popleft())
            self._save()
            self._finish_saving()
            raise

    def _begin(self) -> None:
        start = time.monotonic()
        number = self.position.step + len(self.flights)
        self.watchdog.beat(f"the data of step {number + 1}")
        step = next(self.loader)
        self.watchdog.beat(f"step {number + 1}")
        figures = self.engine.begin(step, number=number, stop=self.stop)
        lr = lr_at(number, self.config.optimizer, self.config.schedule, self.total)
        if self.engine.defers:
            self.engine.apply(lr)
        self.flights.append(Flight(step, number, start, lr, figures))

    def _may_wait(self) -> int:
        """How many steps need not be looked at yet."""
        step = self.position.step + len(self.flights)
        return 1 if self.engine.defers and not self._anything_due(step) else 0

    def _finish(self, flight: Flight) -> None:
        """Look at a step, and do what follows from it; on every process alike."""
        gradients = flight.figures.fetch()
        found = self.sentry.examine(flight.step, flight.number + 1, gradients)
        if not self.engine.defers:
            if found is not None and found.action == "skip":
                self.engine.skip(flight.lr)
            else:
                self.engine.apply(flight.lr)
        self._advance(gradients)
        now = time.monotonic()
        seconds = now - max(flight.start, self.looked)  # the part that the step before it had is not its own
        self.looked = now
        self.asked = gradients.stop
        self._record(self._row(gradients, found, flight, seconds))
        if flight.number == self.standing.resumed_from:
            self.hooks.first_step()

    def _check_stop(self) -> None:
        # Several processes have agreed together with the loss; one alone asks again at the boundary itself.
        if self.asked or (self.engine.ranks.world == 1 and self.stop.reason is not None):
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

    def _row(self, gradients: Gradients, found: Finding | None, flight: Flight, seconds: float) -> Record:
        speed = gradients.tokens / seconds
        first = flight.step.first_sample
        return {
            "step": self.position.step,
            "loss": finite(gradients.loss),
            "lr": flight.lr,
            "grad_norm": finite(gradients.grad_norm),
            "skipped": found.why if found is not None and found.action == "skip" else None,
            "spike": found.why if found is not None and found.action == "warn" else None,
            "samples": [first, first + self.config.batch.size],
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

    def _anything_due(self, step: int) -> bool:
        if due(self.config.save.every, step, self.total) or self._completes_epoch(step):
            return True
        evaluated = self.validation is not None and due(self.config.evaluate.every, step, self.total)
        return evaluated or (bool(self.config.samples.prompts) and due(self.config.samples.every, step, self.total))

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
            self.saver.save(lambda: self.hooks.facts(self.position), since)
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
