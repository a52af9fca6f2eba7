"""One optimizer step: gradients of a global batch, and their application.

Between the two the caller looks at the loss and the gradient norm, so that a batch that went wrong changes nothing.

::

    Engine ──┬── PlainEngine   every process holds everything: one process, or data parallelism
             └── ZeroEngine    DeepSpeed: optimizer state, gradients and weights are shared out by stage

What a step is, how it is clipped and what a checkpoint is made of stands here once; an engine only says where the
tensors are.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from accelerate.accelerator import Accelerator
from torch import nn
from transformers import PreTrainedModel

from lmbatch.checkpoint.commit import Write
from lmbatch.checkpoint.files import Digests
from lmbatch.checkpoint.rng import seed_all
from lmbatch.checkpoint.snapshot import HostBuffers
from lmbatch.config import TrainConfig
from lmbatch.loader import Batch, MaskedBatch, Step
from lmbatch.loader.batches import IGNORED
from lmbatch.model import (
    ParameterCounts,
    Targets,
    causal_loss,
    flops_per_token,
    loss_head,
    masked_loss,
    parameter_counts,
)
from lmbatch.train.figures import Figures, Gradients, said
from lmbatch.train.gradient_norm import clip, sum_of_squares
from lmbatch.train.processes import Ranks
from lmbatch.train.relay import Relay
from lmbatch.train.stop import StopFlag
from lmbatch.train.transfer import Arriving, to_device


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of what one step draws (dropout, and what a model's own code draws besides): a function of its place,
    so that nothing before it can disturb it, and a resume needs the state of no process but its own."""
    text = f"{seed} {step} {rank}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def all_finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Is every element a finite number?

    One that is not makes the sum of its tensor not finite, and sums are quick; one may also overflow by itself.
    """
    sums = torch.stack([tensor.detach().sum(dtype=torch.float32) for tensor in tensors])
    return bool(torch.isfinite(sums).all()) or all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Taken before an engine takes the model apart."""

    counts: ParameterCounts
    flops_per_token: float


class Engine(ABC):
    """The model and its optimizer on the devices of the run.

    ``plain_model`` is the bare module; only ``whole_model`` is sure to have all its weights in it.
    """

    # Does a forward pass need all processes? Then every one of them takes part in every one of them.
    forwards_together = False
    # Does each process hold the gradients of a share of the parameters, and not all?
    gradients_shared_out = False

    def __init__(self, config: TrainConfig, accelerator: Accelerator, model: PreTrainedModel) -> None:
        self._config = config
        self._accelerator: Any = accelerator  # its methods carry no types
        self.ranks = Ranks(accelerator)
        self.most_tokens_per_step = config.batch.size * config.data.sequence_length
        self.size = ModelSize(parameter_counts(model), flops_per_token(model, config.data.sequence_length))
        self.plain_model = model
        self._micro_losses: list[torch.Tensor] = []
        # Of the last two steps, by their first sample: of one that is looked at late another has begun.
        self._recent: deque[tuple[int, list[torch.Tensor]]] = deque(maxlen=2)
        self._relay = Relay(self.ranks, self._part)
        self._buffers = HostBuffers()

    @property
    def tolerates_overflow(self) -> bool:
        """Is an infinite gradient an ordinary event, after which the step is skipped?"""
        return False

    @property
    def defers(self) -> bool:
        """Does the device itself leave out the update of a step that is not finite, and all that follow?

        Then ``apply`` may come before anybody has looked at the step's figures.
        """
        return False

    def gradients(self, step: Step, *, number: int, stop: StopFlag) -> Gradients:
        """Forward and backward over this process's micro-batches of step ``number``, reduced over all processes."""
        return self.begin(step, number=number, stop=stop).fetch()

    def begin(self, step: Step, *, number: int, stop: StopFlag) -> Figures:
        """The same, without waiting for a device to come to the end of it."""
        seed_all(step_seed(self._config.seed, number, self.ranks.rank))
        self._begin_step()
        self._micro_losses = []
        self._recent.append((step.first_sample, self._micro_losses))
        targets, tokens = self._counted(step)
        for index, batch in enumerate(step.batches):
            self._forward_backward(batch, targets, last=index == len(step.batches) - 1)
        norm = self._clip()
        loss = torch.stack(self._micro_losses).double().sum()
        # The main process's norm counts: guards must come to the same decision everywhere, to the last bit.
        agreed = norm.to(loss) if self.ranks.main else torch.zeros_like(loss)
        # The flag is asked as late as possible: a signal during the passes above counts for this step.
        known = to_device(said(step.batches, stop=stop.reason is not None), loss.device)
        sums = self.ranks.total_of(torch.cat([loss[None], agreed[None], known]))
        if self.defers:
            self._refuse_unless(torch.isfinite(sums[:2]).all())
        return Figures(Arriving.of(sums), targets, tokens)

    def apply(self, lr: float) -> None:
        """Take the optimizer step that the gradients of the last call ask for."""
        self._set_lr(lr)
        self._update()

    def skip(self, lr: float) -> None:
        """Drop the gradients of the last call: weights and optimizer state stay as they are, to the bit."""
        self._set_lr(lr)
        self._discard()

    def suspects(self, step: Step, most: float) -> list[int]:
        """The samples of micro-batches whose own loss, in nats per token, is not finite or above ``most``.

        After ``gradients`` of the same step, or of the one that follows it; every process calls this together, and gets
        those of all.
        """
        found = next(losses for first, losses in reversed(self._recent) if first == step.first_sample)
        losses = zip(step.batches, found, strict=True)
        bad = [batch for batch, loss in losses if not math.isfinite(own := loss.item()) or own > most * batch.targets]
        return sorted(self.ranks.all_of([sample for batch in bad for sample in batch.samples]))

    def weights_are_finite(self) -> bool:
        """Is every weight, on every process, a finite number? Every process calls this together."""
        return not self.ranks.any(not all_finite(self._held_weights()))

    def summed_loss(self, batch: Batch | None) -> float:
        """Summed cross-entropy in nats of a batch's predicted tokens, without gradients or dropout.

        Every process calls this in every round; one that has no batch left passes None, and gets 0.
        """
        if batch is None and not self.forwards_together:
            return 0.0
        model = self._evaluation_model()
        model.train(False)
        with torch.no_grad():
            loss = float(self._loss(model, batch or self._stand_in()).item())
        return 0.0 if batch is None else loss

    def whole_model(self) -> PreTrainedModel:
        """The model with all its weights, on the main process. Every process calls this together."""
        return self.plain_model

    def save(self, commit: Callable[[Write], None]) -> None:
        """``commit(write)`` on the main process, where ``write`` fills the folder that it is given.

        The others help while it writes; all return together. Raises what ``commit`` raises.
        """
        self._relay.run(lambda: commit(self._write))

    @abstractmethod
    def snapshot(self) -> Callable[[Callable[[Write], None]], None]:
        """Copy the training state into host memory. What is given back does as ``save``, with the state of this moment,
        and is to be called in a thread behind, on every process; it must be through before the next copy is taken.
        """

    @abstractmethod
    def _begin_step(self) -> None:
        """Training mode, and no gradients."""

    @abstractmethod
    def _forward_backward(self, batch: Batch, targets: int, *, last: bool) -> None:
        """Add a micro-batch's gradients; after the last one they are those of the mean over all ``targets``."""

    @abstractmethod
    def _gradients(self) -> list[torch.Tensor]:
        """The gradients that this process holds, unscaled, to be read and scaled in place before the update."""

    @abstractmethod
    def _set_lr(self, lr: float) -> None:
        """For the step that follows."""

    @abstractmethod
    def _update(self) -> None:
        """The optimizer's step."""

    def _refuse_unless(self, healthy: torch.Tensor) -> None:
        """Leave this update out, and all that follow it, if ``healthy`` (a boolean on the device) is not true."""
        raise NotImplementedError

    @abstractmethod
    def _discard(self) -> None:
        """What a step has to put in order when its gradients are not used."""

    @abstractmethod
    def _held_weights(self) -> list[torch.Tensor]:
        """The weights that this process holds; those of all processes together are all weights."""

    @abstractmethod
    def _evaluation_model(self) -> nn.Module:
        """What a forward pass outside training goes through."""

    @abstractmethod
    def _write(self, folder: Path) -> Digests:
        """The training state, on the main process; parts that others hold come through the relay."""

    def _part(self, number: int) -> torch.Tensor:
        """Part ``number`` of the state, made by all processes together."""
        raise NotImplementedError(f"part {number}: every process holds everything")

    def _counted(self, step: Step) -> tuple[int, int]:
        """Predicted tokens of the global batch, one at least, and tokens read.

        Other processes are asked only where that is not the same in every step.
        """
        batches = step.batches
        if not batches[0].targets_vary:
            return self.most_tokens_per_step, self.most_tokens_per_step
        own = [float(sum(batch.targets for batch in batches)), float(sum(batch.seen for batch in batches))]
        targets, tokens = self.ranks.total(own)
        return max(1, int(targets)), int(tokens)

    def _stand_in(self) -> Batch:
        length = self._config.data.sequence_length
        batch = Batch(0, (0,), np.zeros((1, length + 1), np.int64))
        return batch if self._config.objective is None else MaskedBatch.nothing(length)

    def _scaled_loss(self, model: nn.Module, batch: Batch, targets: int) -> torch.Tensor:
        loss = self._loss(model, batch)
        self._micro_losses.append(loss.detach())
        # Gradients are averaged over the processes; the loss is a mean over the global batch.
        return loss * (self.ranks.world / targets)

    def _loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        inputs: dict[str, Any] = {name: self._on_device(array) for name, array in batch.inputs().items()}
        masked = isinstance(batch, MaskedBatch)
        if not masked:
            inputs["use_cache"] = False
        head = loss_head(self.plain_model)
        if head is not None:
            with head.asked_for(self._targets(batch.labels())):
                return cast(torch.Tensor, model(**inputs).logits)
        labels = self._on_device(batch.labels())
        return (masked_loss if masked else causal_loss)(model(**inputs).logits, labels)

    def _targets(self, labels: npt.NDArray[np.int64]) -> Targets:
        """Which rows count is found here, on the host: on a device that would wait for all that is queued there."""
        flat = labels.ravel()
        rows = np.flatnonzero(flat != IGNORED)
        if len(rows) == len(flat):
            return Targets(self._on_device(flat), None)
        return Targets(self._on_device(flat[rows]), self._on_device(rows))

    def _on_device(self, array: npt.NDArray[np.int64]) -> torch.Tensor:
        return to_device(torch.from_numpy(array).to(torch.int64), self._accelerator.device)

    def _clip(self) -> torch.Tensor:
        tensors = self._gradients()
        squares = sum_of_squares(tensors)
        norm = (self.ranks.total_of(squares) if self.gradients_shared_out else squares).sqrt()
        clip(tensors, norm, self._config.optimizer.clip_norm)
        return norm
