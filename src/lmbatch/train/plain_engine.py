"""The plain engine: every process holds the model, the optimizer and all gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.accelerator import Accelerator
from torch import nn
from transformers import PreTrainedModel

from lmbatch.checkpoint.commit import Write
from lmbatch.checkpoint.files import Digests
from lmbatch.checkpoint.snapshot import frozen
from lmbatch.checkpoint.state import TrainingState, write_state
from lmbatch.config import GuardsConfig, TrainConfig
from lmbatch.loader import Batch
from lmbatch.train.compiled import compiled
from lmbatch.train.engine import Engine
from lmbatch.train.optimizer import set_lr
from lmbatch.train.resume import load_checkpoint


class PlainEngine(Engine):
    """One process, or data parallelism, prepared by Accelerate."""

    def __init__(
        self, config: TrainConfig, accelerator: Accelerator, model: PreTrainedModel, optimizer: torch.optim.Optimizer,
        resume: Path | None,
    ) -> None:  # fmt: skip
        """``resume`` is the folder of a checkpoint. Raises CheckpointError if it does not fit."""
        super().__init__(config, accelerator, model)
        self._plain_optimizer = optimizer
        self._ill = torch.tensor(False)  # was there a step that is not finite?
        prepare: Any = accelerator.prepare
        self._model, self._optimizer = prepare(model, optimizer)
        self._trained = compiled(self._model, config)
        # Evaluation must not go through the data-parallel wrapper: its processes may see unequal numbers of batches.
        self.plain_model = self._accelerator.unwrap_model(self._model)
        if self.ranks.world > 1:
            self._settle_buckets()
        if resume is not None:
            load_checkpoint(resume, self.plain_model, optimizer, self.scaler)

    @property
    def scaler(self) -> Any:
        """The loss scaler of fp16, else None."""
        return self._accelerator.scaler

    @property
    def tolerates_overflow(self) -> bool:
        """In fp16 the scaler skips the step and lowers its scale, as long as that is above one."""
        return self.scaler is not None and self.scaler.get_scale() > 1.0

    def _settle_buckets(self) -> None:
        """One backward pass for nothing: after its first one, DistributedDataParallel lays its buckets out anew.

        Where a gradient lies in a bucket decides in which order more than two processes add it up, so the first step
        of a resume would differ in its last bits from the same step of a run that was never interrupted.
        """
        self._begin_step()
        self._loss(self._model, self._stand_in()).backward()  # type: ignore[no-untyped-call]
        self._optimizer.zero_grad()

    def snapshot(self) -> Callable[[Callable[[Write], None]], None]:
        """The main process holds everything; the others have nothing to do."""
        if not self.ranks.main:
            return lambda _: None
        copied = frozen(self._state(), self._buffers)
        return lambda commit: commit(lambda folder: write_state(folder, copied))

    @property
    def defers(self) -> bool:
        """With the fused optimizer, which can look at a flag on the device, and guards that do nothing but stop."""
        guards = self._config.guards or GuardsConfig()
        fused = all(group["fused"] for group in self._plain_optimizer.param_groups)  # the others pass over the flag
        return fused and self.scaler is None and guards.only_stop

    def _refuse_unless(self, healthy: torch.Tensor) -> None:
        # torch's optimizers take this from a gradient scaler, and leave weights, moments and step counts as they are.
        self._ill = torch.logical_or(self._ill.to(healthy.device), healthy.logical_not())
        untyped: Any = self._plain_optimizer
        untyped.found_inf = self._ill.float()

    def _begin_step(self) -> None:
        self._model.train()
        self._optimizer.zero_grad()

    def _forward_backward(self, batch: Batch, targets: int, *, last: bool) -> None:
        with contextlib.nullcontext() if last else self._accelerator.no_sync(self._model):
            self._accelerator.backward(self._scaled_loss(self._trained, batch, targets))

    def _gradients(self) -> list[torch.Tensor]:
        self._accelerator.unscale_gradients()
        return [parameter.grad for parameter in self._model.parameters() if parameter.grad is not None]

    def _set_lr(self, lr: float) -> None:
        set_lr(self._plain_optimizer, lr)

    def _update(self) -> None:
        self._optimizer.step()

    def _discard(self) -> None:
        if self.scaler is not None:  # it has unscaled, and must forget that; its scale had no part in this
            self.scaler.update(self.scaler.get_scale())

    def _held_weights(self) -> list[torch.Tensor]:
        return list(self.plain_model.parameters())

    def _evaluation_model(self) -> nn.Module:
        return self.plain_model

    def _write(self, folder: Path) -> Digests:
        return write_state(folder, self._state())

    def _state(self) -> TrainingState:
        return TrainingState.of(self.plain_model, self._plain_optimizer, scaler=self.scaler, extra={})
