"""One optimizer step: gradients of a global batch, and their application.

Between the two the caller looks at the loss and the gradient norm, so that a batch that went wrong changes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.accelerator import Accelerator
from torch import nn
from transformers import PreTrainedModel

from lmbatch.config import TrainConfig
from lmbatch.loader import Batch, Step
from lmbatch.model import causal_loss
from lmbatch.train.optimizer import set_lr
from lmbatch.train.processes import Ranks
from lmbatch.train.stop import StopFlag

_PARTS = 4  # a 64-bit sum travels as four 16-bit parts, which float64 adds exactly


@dataclass(frozen=True, slots=True)
class Gradients:
    """What a forward and backward pass over the global batch gave; the same on every process.

    ``loss`` is nats per token over ``tokens`` predicted tokens, none of them padding; ``data`` identifies the batch;
    ``stop`` tells whether any process was asked to stop.
    """

    loss: float
    tokens: int
    grad_norm: float
    data: str
    stop: bool


def sample_digest(sample: int, tokens: np.ndarray) -> int:
    """64 bits that identify the tokens of sample number ``sample`` (BLAKE2b)."""
    number = sample.to_bytes(8, "little")
    return int.from_bytes(
        hashlib.blake2b(tokens.astype("<i8").tobytes(), digest_size=8, salt=number).digest(), "little"
    )


def batches_digest(batches: Sequence[Batch]) -> int:
    """The sum of the samples' digests modulo 2^64: no matter how they are spread over batches and processes.

    Padding is no part of a sample.
    """
    total = 0
    for batch in batches:
        lengths = [batch.tokens.shape[1]] * len(batch.samples) if batch.lengths is None else batch.lengths.tolist()
        for sample, row, length in zip(batch.samples, batch.tokens, lengths, strict=True):
            total += sample_digest(sample, row[:length])
    return total % 2**64


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of one step's dropout: a function of its place, so that nothing before it can disturb it."""
    text = f"{seed} {step} {rank}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


class Engine:
    """The model and its optimizer on this process's device, prepared by Accelerate."""

    def __init__(
        self, config: TrainConfig, accelerator: Accelerator, model: PreTrainedModel, optimizer: torch.optim.Optimizer
    ) -> None:
        self._config = config
        self._accelerator: Any = accelerator  # its methods carry no types
        self.ranks = Ranks(accelerator)
        self.most_tokens_per_step = config.batch.size * config.data.sequence_length
        self.plain_optimizer = optimizer
        prepare: Any = accelerator.prepare
        self._model, self._optimizer = prepare(model, optimizer)
        # Evaluation must not go through the data-parallel wrapper: its processes may see unequal numbers of batches.
        self.plain_model: PreTrainedModel = accelerator.unwrap_model(self._model)
        self._micro_losses: list[torch.Tensor] = []

    @property
    def scaler(self) -> Any:
        """The loss scaler of fp16, else None."""
        return self._accelerator.scaler

    @property
    def tolerates_overflow(self) -> bool:
        """In fp16 an infinite gradient is an ordinary event: the scaler skips the step and lowers its scale."""
        return self.scaler is not None and self.scaler.get_scale() > 1.0

    def gradients(self, step: Step, *, number: int, stop: StopFlag) -> Gradients:
        """Forward and backward over this process's micro-batches of step ``number``, reduced over all processes."""
        torch.manual_seed(step_seed(self._config.seed, number, self.ranks.rank))
        self._model.train()
        self._optimizer.zero_grad()
        self._micro_losses = []
        tokens = self._targets(step)
        for index, batch in enumerate(step.batches):
            last = index == len(step.batches) - 1
            with contextlib.nullcontext() if last else self._accelerator.no_sync(self._model):
                self._backward(batch, tokens)
        norm = self._clip()
        digest = batches_digest(step.batches)
        parts = [float(digest >> (16 * part) & 0xFFFF) for part in range(_PARTS)]
        own = torch.stack(self._micro_losses).double().sum().item()
        # The flag is asked as late as possible: a signal during the passes above counts for this step.
        loss, stops, *parts = self.ranks.total([own, float(stop.reason is not None), *parts])
        whole = sum(int(value) << (16 * part) for part, value in enumerate(parts)) % 2**64
        return Gradients(loss / tokens, tokens, norm, f"{whole:016x}", stops > 0)

    def apply(self, lr: float) -> None:
        """Take the optimizer step that the gradients of the last call ask for."""
        set_lr(self.plain_optimizer, lr)
        self._optimizer.step()

    def bad_batches(self, step: Step) -> list[Batch]:
        """The micro-batches of this process whose own loss is not finite, after ``gradients`` of the same step."""
        return [
            batch
            for batch, loss in zip(step.batches, self._micro_losses, strict=True)
            if not math.isfinite(loss.item())
        ]

    def summed_loss(self, batch: Batch) -> float:
        """Summed cross-entropy in nats of a batch's predicted tokens, without gradients or dropout."""
        self.plain_model.train(False)
        with torch.no_grad():
            return float(self._loss(self.plain_model, batch).item())

    def _targets(self, step: Step) -> int:
        """Predicted tokens of the global batch. Other processes are asked only where samples are padded."""
        if step.batches[0].lengths is None:
            return self.most_tokens_per_step
        return int(self.ranks.total([float(sum(batch.targets for batch in step.batches))])[0])

    def _backward(self, batch: Batch, tokens: int) -> None:
        loss = self._loss(self._model, batch)
        # Data parallelism averages gradients over the processes; the loss is a mean over the global batch.
        self._accelerator.backward(loss * (self.ranks.world / tokens))
        self._micro_losses.append(loss.detach())

    def _loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        tokens = torch.from_numpy(batch.tokens).to(self._accelerator.device, torch.int64)
        labels = tokens[:, 1:]
        if batch.lengths is not None:
            labels = torch.from_numpy(batch.labels()).to(self._accelerator.device, torch.int64)
        # Padding stands behind what is attended to, so a causal model needs no mask for it.
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        return causal_loss(logits, labels)

    def _clip(self) -> float:
        limit = self._config.optimizer.clip_norm
        norm = self._accelerator.clip_grad_norm_(self._model.parameters(), math.inf if limit is None else limit)
        return float(norm)
