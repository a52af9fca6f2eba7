"""Builds everything that an attempt needs, and hands it to the loop."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch

from lmbatch import __version__
from lmbatch.checkpoint import CheckpointFacts, Checkpoints
from lmbatch.checkpoint.checkpoints import Checkpoint
from lmbatch.config import GuardsConfig, TrainConfig, fingerprint
from lmbatch.errors import StopRequested
from lmbatch.estimate.devices import peak_flops
from lmbatch.estimate.shape import ModelShape
from lmbatch.loader import (
    BatchLoader,
    LoaderState,
    Purpose,
    TokenData,
    check_batch,
    documents_of,
    open_train_data,
    samples_of,
)
from lmbatch.model import build_model, check_documents_apart, load_base
from lmbatch.model.size import shape_of
from lmbatch.store import Manifest, open_store
from lmbatch.train.attempts import AttemptLog, check_progress
from lmbatch.train.base import resolve_base
from lmbatch.train.compute import prepare_model
from lmbatch.train.engine import Engine
from lmbatch.train.evaluate import Validation
from lmbatch.train.folder import RunFolder, check_tokenizer, open_mirror
from lmbatch.train.foretold import foretell
from lmbatch.train.guards import Guard
from lmbatch.train.loop import Hooks, Loop, Position
from lmbatch.train.metrics import read_metrics, training_rows
from lmbatch.train.objective import Objective, open_objective
from lmbatch.train.optimizer import build_optimizer
from lmbatch.train.plain_engine import PlainEngine
from lmbatch.train.processes import Processes, Ranks, start_processes
from lmbatch.train.recorder import Recorder, last_logged_step
from lmbatch.train.records import Record
from lmbatch.train.resume import choose_checkpoint, config_identity
from lmbatch.train.samples import text_maker
from lmbatch.train.saver import Saver
from lmbatch.train.schedule import check_schedule, total_steps
from lmbatch.train.sentry import Sentry
from lmbatch.train.session import Standing
from lmbatch.train.stop import StopFlag
from lmbatch.train.watchdog import Watchdog

log = logging.getLogger(__name__)

# The reason of a stop that the saver asks for; what has failed is raised in its place.
FAILED_SAVE = "a save that failed"


def train_run(
    config: TrainConfig, folder: RunFolder, stop: StopFlag, ledger: AttemptLog | None, standing: Standing,
    started: float,
) -> None:  # fmt: skip
    """Train until the run is done. Raises StopRequested after a stop, with everything saved."""
    stop.check()
    worker = Worker(config, folder, stop, ledger, standing, started, start_processes(config))
    together = False
    try:
        worker.train()
        together = True
    except StopRequested:
        together = True
        raise
    finally:
        worker.ranks.leave(together=together)


class Worker:
    """One process of an attempt. ``ledger`` is there on the main process only."""

    def __init__(
        self, config: TrainConfig, folder: RunFolder, stop: StopFlag, ledger: AttemptLog | None, standing: Standing,
        started: float, processes: Processes,
    ) -> None:  # fmt: skip
        self._config, self._folder, self._stop, self._ledger = config, folder, stop, ledger
        self._standing, self._started, self._accelerator = standing, started, processes.accelerator
        self.ranks = Ranks(processes.accelerator)
        self._precision = processes.precision
        self._watchdog: Watchdog | None = None
        self._recorder: Recorder | None = None
        self._objective: Objective
        self._shape: ModelShape  # before an engine takes the model apart
        self._losses: Mapping[int, float] = {}  # of the evaluations so far, on the main process
        self._known: Mapping[int, float] = {}  # those at the newest save

    def train(self) -> None:
        """Open the data, choose the checkpoint, build the model, run the loop."""
        with ExitStack() as stack:
            self._watchdog = stack.enter_context(
                Watchdog(self._config.run.hang_seconds, self._folder.hanging, self.ranks.rank)
            )
            self._objective = open_objective(self._config)
            data = stack.enter_context(open_train_data(self._objective.data, seed=self._config.seed))
            check_batch(self._config.batch.size, self._config.batch.micro, self.ranks.world)
            check_tokenizer(self._config, data.manifest)
            total = self._standing.total = total_steps(self._config, data.order.samples_per_epoch)
            check_schedule(self._config.schedule, total)
            checkpoints = stack.enter_context(self._open_checkpoints())
            self._resolve_base(checkpoints, data)
            found = self._choose(checkpoints, data)
            self._check()
            engine = self._build(data, found)
            self._check()
            self._recorder = self._open_recorder(engine, data, total)
            if self._recorder is not None:
                stack.callback(self._recorder.close)
            self._loop(stack, checkpoints, engine, data, found)

    def _open_checkpoints(self) -> Checkpoints:
        save = self._config.save
        return Checkpoints(
            open_store(str(self._folder.path)), keep=save.keep, keep_every=save.keep_every, keep_best=save.keep_best,
            losses=lambda: self._known, mirror=open_mirror(self._config),
            on_upload=lambda step, seconds: self._note("upload", {"step": step, "upload_seconds": seconds}),
            on_failure=lambda: self._stop.request(FAILED_SAVE),
        )  # fmt: skip

    def _resolve_base(self, checkpoints: Checkpoints, data: TokenData) -> None:
        model = self._config.model
        if model.base is not None:
            pinned = resolve_base(model, checkpoints, data, self._folder) if self.ranks.main else None
            self._config = self._config.model_copy(update={"model": self.ranks.from_main(pinned)})

    def _choose(self, checkpoints: Checkpoints, data: TokenData) -> Checkpoint | None:
        found: Checkpoint | None = None
        if self.ranks.main:
            found = choose_checkpoint(checkpoints, self._config, data.manifest, self._precision)
        found = self.ranks.from_main(found)
        step = found.step if found is not None else 0
        self._standing.resumed_from = self._standing.step = step
        self._standing.saved = step if found is not None else None
        if self._ledger is not None:
            self._ledger.resumed(step, last_logged=last_logged_step(self._folder))
            check_progress(
                self._ledger.earlier, job_id=self._ledger.job_id, step=step, most=self._config.run.max_idle_attempts
            )
        return found

    def _build(self, data: TokenData, found: Checkpoint | None) -> Engine:
        config = self._config
        sizes = {
            "vocab_size": data.manifest.tokenizer.size, "sequence_length": config.data.sequence_length,
            "eod_id": data.manifest.tokenizer.eod_id,
        }  # fmt: skip
        if config.model.base is not None and found is None:
            model = load_base(config.model, **sizes)
        else:
            model = build_model(config.model, **sizes, seed=config.seed, masked=self._objective.model_ids)
        on_gpu = self._accelerator.device.type == "cuda"
        prepare_model(model, config, on_gpu=on_gpu, precision=self._precision)
        if config.data.document_attention:
            check_documents_apart(model)
        self._shape = shape_of(model)
        optimizer = build_optimizer(model, config.optimizer, fused=config.compute.fused_optimizer)
        resume = found.folder if found is not None else None
        if config.engine.name == "plain":
            return PlainEngine(config, self._accelerator, model, optimizer, resume)
        from lmbatch.train.zero_engine import ZeroEngine

        return ZeroEngine(config, self._accelerator, model, optimizer, resume)

    def _open_recorder(self, engine: Engine, data: TokenData, total: int) -> Recorder | None:
        if not self.ranks.main:
            return None
        facts = _model_facts(engine, self._config) | {"total_steps": total}
        self._folder.write_facts(self._config, data.manifest, facts)
        self._folder.copy_tokenizer(data.store, data.manifest)
        foretell(
            self._folder.path, self._config, self._shape, device=self._accelerator.device, world=self.ranks.world,
            precision=self._precision, steps=total, tokens_per_epoch=data.manifest.tokens("train"),
        )  # fmt: skip
        step = self._standing.resumed_from or 0
        _log_summary(self._config, engine, data, step, total)
        recorder = Recorder(self._folder, self._config, step=step, total=total)
        self._losses = recorder.losses
        self._known = dict(self._losses)
        return recorder

    def _loop(
        self, stack: ExitStack, checkpoints: Checkpoints, engine: Engine, data: TokenData, found: Checkpoint | None
    ) -> None:
        position = _position(found)
        loader = BatchLoader(
            data.order, data.reader, batch_size=self._config.batch.size, micro=self._config.batch.micro,
            start_sample=position.samples, rank=self.ranks.rank, world_size=self.ranks.world,
            prefetch=self._config.data.prefetch, prepare=self._objective.preparing(Purpose.TRAINING),
        )  # fmt: skip
        stack.callback(loader.close)
        assert self._standing.total is not None
        assert self._watchdog is not None
        sentry = self._sentry(engine, data, found)
        loop = Loop(
            config=self._config, engine=engine, loader=loader, validation=self._open_validation(stack, data.manifest),
            recorder=self._recorder, hooks=self._hooks(data, sentry.guard), stop=self._stop, standing=self._standing,
            position=position, total=self._standing.total, watchdog=self._watchdog,
            sentry=sentry, mfu_of_speed=self._mfu_of_speed(engine),
            saver=stack.enter_context(self._open_saver(checkpoints, engine)), copied=position.step,
        )  # fmt: skip
        loop.run()

    def _sentry(self, engine: Engine, data: TokenData, found: Checkpoint | None) -> Sentry:
        guard = self.ranks.from_main(self._guard(found) if self.ranks.main else None)
        assert guard is not None
        return Sentry(guard, engine, lambda samples: _origins(data, samples), self._config.batch.size)

    def _guard(self, found: Checkpoint | None) -> Guard:
        """As it stood at the checkpoint: by the rows, which the recorder has cut, or where they are lost by itself."""
        config = self._config.guards or GuardsConfig()
        rows = training_rows(read_metrics(self._folder.path))
        if found is None or not found.step or (rows and rows[-1]["step"] == found.step):
            return Guard.after(config, rows)
        if found.facts.guards is not None:
            return Guard.restored(config, found.facts.guards)
        if self._config.guards is not None:
            log.warning("metrics.jsonl has no row of step %d: the guards know nothing of the steps before", found.step)
        return Guard.after(config, rows)

    def _open_validation(self, stack: ExitStack, manifest: Manifest) -> Validation | None:
        """None if the config wants no evaluation, or the split has not one whole sample."""
        config = self._config
        if config.evaluate.batches == 0:
            return None
        if not samples_of(manifest, "validation", self._objective.data.sequence_length):
            log.warning("no evaluation: the validation split has not one sample of data.sequence_length")
            return None
        data = stack.enter_context(open_train_data(self._objective.data, seed=config.seed, split="validation"))
        batches = data.evaluation(
            micro=config.batch.micro, batches=config.evaluate.batches, rank=self.ranks.rank,
            world_size=self.ranks.world, prepare=self._objective.preparing(Purpose.VALIDATION),
        )  # fmt: skip
        rounds = -(-batches.samples // (config.batch.micro * self.ranks.world))
        return Validation(manifest, batches, rounds=rounds, whole_text=config.objective is None)

    def _hooks(self, data: TokenData, guard: Guard) -> Hooks:
        return Hooks(
            facts=lambda position: self._facts(data, position, guard),
            first_step=self._first_step,
            generate=text_maker(self._config, self._folder) if self.ranks.main else None,
        )

    def _facts(self, data: TokenData, position: Position, guard: Guard) -> CheckpointFacts:
        """Those of a checkpoint that is taken now. What is kept beside it goes by the evaluations that are known now,
        and not by how long it takes to write."""
        self._known = dict(self._losses)
        return _facts(self._config, data, position, guard, self.ranks.world, self._precision)

    def _open_saver(self, checkpoints: Checkpoints, engine: Engine) -> Saver:
        return Saver(
            self._config.save, engine, checkpoints, note=self._note, committed=self._committed,
            on_failure=lambda: self._stop.request(FAILED_SAVE),
        )  # fmt: skip

    def _committed(self, step: int) -> None:
        self._standing.saved = step

    def _note(self, kind: str, row: Record) -> None:
        if self._recorder is not None:
            self._recorder.note(kind, row)

    def _first_step(self) -> None:
        if self._ledger is not None:
            self._ledger.first_step(time.monotonic() - self._started)

    def _mfu_of_speed(self, engine: Engine) -> float | None:
        device = self._accelerator.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        peak = self._config.peak_flops or peak_flops(name, self._precision)
        return None if peak is None else engine.size.flops_per_token / (peak * self.ranks.world)

    def _check(self) -> None:
        """Raise StopRequested on every process if any was asked to stop."""
        if self.ranks.any(self._stop.reason is not None):
            self._stop.request("another process")
            self._stop.check()


def _position(found: Checkpoint | None) -> Position:
    if found is None:
        return Position(step=0, samples=0, tokens=0)
    return Position(found.step, found.facts.samples_consumed, found.facts.tokens_consumed)


def _facts(
    config: TrainConfig, data: TokenData, position: Position, guard: Guard, world: int, precision: str
) -> CheckpointFacts:
    digest = data.manifest.digest
    state = LoaderState(manifest_digest=digest, seed=config.seed, samples_consumed=position.samples)
    return CheckpointFacts(
        step=position.step, samples_consumed=position.samples, tokens_consumed=position.tokens, world_size=world,
        engine=config.engine.label, config=fingerprint(config), config_identity=config_identity(config),
        manifest_digest=digest, loader=state.to_dict(), code_version=__version__, precision=precision,
        guards=None if config.guards is None else guard.state(),
    )  # fmt: skip


def _origins(data: TokenData, samples: list[int]) -> list[str]:
    """The documents that samples were cut from, in words."""
    spans = [span for sample in samples for span in data.spans(sample)]
    found = documents_of(data.store, data.manifest, "train", spans)
    return list(dict.fromkeys(f"{doc.path} at {doc.position} (id {doc.id})" for doc in found))


def _model_facts(engine: Engine, config: TrainConfig) -> dict[str, Any]:
    counts = engine.size.counts
    return {
        "type": config.model.type,
        "parameters": {
            "total": counts.total, "embedding": counts.embedding, "non_embedding": counts.non_embedding,
        },
        "sequence_length": config.data.sequence_length,
        "flops_per_token": engine.size.flops_per_token,
        "config": json.loads(engine.plain_model.config.to_json_string()),
    }  # fmt: skip


def _log_summary(config: TrainConfig, engine: Engine, data: TokenData, step: int, total: int) -> None:
    counts = engine.size.counts
    epochs = total * config.batch.size / data.order.samples_per_epoch
    log.info("%s: %s parameters (%s without embeddings)", config.model.type, f"{counts.total:,}",
             f"{counts.non_embedding:,}")  # fmt: skip
    log.info("corpus %s, %s tokens, digest %s", data.manifest.corpus, f"{data.manifest.tokens('train'):,}",
             data.manifest.digest)  # fmt: skip
    chunking = data.manifest.chunking
    log.info("engine %s, %d processes", config.engine.label, engine.ranks.world)
    log.info("%s%s tokens per step, %d steps (%.2f epochs), %s", "" if chunking is None else "at most ",
             f"{engine.most_tokens_per_step:,}", total, epochs,
             f"resumes at step {step}" if step else "starts at step 0")  # fmt: skip
    masked = config.objective is not None  # whose rows are padded to the longest of a batch alone
    if chunking is not None and not masked and chunking.most <= config.data.sequence_length:
        log.warning("no example has more than %d tokens, so of data.sequence_length %d the rest is padding",
                    chunking.most, config.data.sequence_length)  # fmt: skip
