"""The DeepSpeed engine: ZeRO stages 0 to 3, with or without the optimizer on the host.

A checkpoint is the plain engine's, tensor by tensor under the parameter's own name. The main process writes it in one
pass; whatever it does not hold is put together by all processes when its turn comes, so that at no time more than one
whole tensor is in anybody's memory. DeepSpeed's own checkpoints are bound to the number of processes and the stage, and
its universal ones take a conversion between the save and the resume, which a requeued job has nobody to run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from accelerate.accelerator import Accelerator
from torch import nn
from transformers import PreTrainedModel

from lmbatch.checkpoint.commit import Write
from lmbatch.checkpoint.files import Digests
from lmbatch.checkpoint.rng import rng_state
from lmbatch.checkpoint.snapshot import frozen_weights
from lmbatch.checkpoint.state import (
    OptimizerState,
    TrainingState,
    load_rng,
    parameter_names,
    read_optimizer_state,
    write_state,
)
from lmbatch.checkpoint.tensors import Pending
from lmbatch.checkpoint.weights import Weights
from lmbatch.config import EngineConfig, TrainConfig
from lmbatch.errors import LaunchError, NonFiniteLossError
from lmbatch.loader import Batch
from lmbatch.model import cut_to
from lmbatch.train.backstage import Backstage
from lmbatch.train.engine import Engine
from lmbatch.train.zero_partition import KINDS, MOMENTS, Partition, partition_of
from lmbatch.train.zero_share import Share

# Element ``kind`` of parameter ``index``, when its turn comes.
Fetch = Callable[[int, str], Pending]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a checkpoint looks like, taken from the model and the optimizer while they are still in one piece."""

    names: frozenset[str]  # of all weights and buffers, a tied one by its first name
    aliases: Mapping[str, str]  # the other names of tied ones
    groups: list[list[list[Any]]]  # name and shape of the parameters of each group
    settings: list[dict[str, Any]]  # of each group

    @classmethod
    def of(cls, model: nn.Module, optimizer: torch.optim.Optimizer) -> Layout:
        """Raises CheckpointError for a model that cannot be saved."""
        settings = optimizer.state_dict()["param_groups"]
        weights = Weights.of(model)
        return cls(frozenset(weights.tensors), weights.aliases, parameter_names(model, optimizer), settings)

    @property
    def parameters(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of all trained parameters, in the optimizer's order."""
        return [(name, tuple(shape)) for group in self.groups for name, shape in group]


class ZeroEngine(Engine):
    """DeepSpeed's engine, built by Accelerate and driven by hand: backward, a look at the result, step.

    Accelerate's ``backward`` would step within the last backward pass, before anybody could look.
    """

    def __init__(
        self, config: TrainConfig, accelerator: Accelerator, model: PreTrainedModel, optimizer: torch.optim.Optimizer,
        resume: Path | None,
    ) -> None:  # fmt: skip
        """``resume`` is the folder of a checkpoint. Raises CheckpointError if it does not fit, LaunchError if DeepSpeed
        is not what was asked for."""
        super().__init__(config, accelerator, model)
        state = None if resume is None else _load_whole(resume, model, optimizer)
        self._layout = Layout.of(model, optimizer)
        named = dict(model.named_parameters())
        prepare: Any = accelerator.prepare
        self._model, _ = prepare(model, optimizer)
        self._partition = partition_of(self._model, {name: named[name] for name, _ in self._layout.parameters})
        check_built(config.engine, self._model, self._partition, world=self.ranks.world, total=self.size.counts.total)
        self.forwards_together = config.engine.zero_stage == 3 and self.ranks.world > 1
        self.gradients_shared_out = self._partition.shared_out
        self._share = self._open_share() if config.save.asynchronous else None
        if resume is not None and state is not None:
            self._load_moments(state)
            load_rng(resume)

    def whole_model(self) -> PreTrainedModel:
        """In stage 3 a copy in the main process's memory, filled by all processes together."""
        if self._config.engine.zero_stage < 3:
            return self.plain_model
        targets = dict(self._copy.named_parameters()) if self.ranks.main else {}
        for name, _ in self._layout.parameters:
            found = self._partition.weight(name)
            if name in targets:
                targets[name].data.copy_(cut_to(found, targets[name].shape))
        return self._copy if self.ranks.main else self.plain_model

    @cached_property
    def _copy(self) -> PreTrainedModel:
        with torch.random.fork_rng(devices=[]):
            return type(self.plain_model)(self.plain_model.config)

    def _begin_step(self) -> None:
        self._model.train()

    def _forward_backward(self, batch: Batch, targets: int, *, last: bool) -> None:
        self._model.set_gradient_accumulation_boundary(last)
        self._model.backward(self._scaled_loss(self._model, batch, targets), scale_wrt_gas=False)

    def _gradients(self) -> list[torch.Tensor]:
        return self._partition.gradients()

    def _set_lr(self, lr: float) -> None:
        for group in self._model.optimizer.param_groups:
            group["lr"] = lr

    def _update(self) -> None:
        self._model.step()
        if not self._model.was_step_applied():
            raise NonFiniteLossError(
                "DeepSpeed left out the update: it found gradients too large for float32",
                remedy="lower optimizer.lr; the run resumes from its last checkpoint",
            )

    def _discard(self) -> None:
        """DeepSpeed has no call for this, so its step is taken, with all it clears up, around an optimizer that
        stands still. Gradients that are not finite it may leave out by itself; that comes to the same."""
        with self._partition.standing_still():
            self._model.step()

    def _held_weights(self) -> list[torch.Tensor]:
        return self._partition.masters()

    def _evaluation_model(self) -> nn.Module:
        model: nn.Module = self._model  # the module alone would lack autocast
        return model

    def snapshot(self) -> Callable[[Callable[[Write], None]], None]:
        """Each process copies its share; the main one gathers them when it writes."""
        share = self._share
        if share is None:
            return lambda _: None
        share.copy()
        state = self._state(share.pending)
        copied = replace(state, weights=self._with_buffers_copied(state.weights))
        return lambda commit: share.run(lambda: commit(lambda folder: write_state(folder, copied)))

    def _open_share(self) -> Share | None:
        """None on a process that has nothing to give to a checkpoint."""
        if self._partition.shared_out:
            return Share(self._partition, self._layout.parameters, Backstage.of(self.ranks), self._buffers)
        if not self.ranks.main:
            return None
        return Share(self._partition, self._layout.parameters, Backstage.alone(), self._buffers)

    def _write(self, folder: Path) -> Digests:
        return write_state(folder, self._state(self._pending))

    def _state(self, fetch: Fetch) -> TrainingState:
        return TrainingState(self._weights(fetch), self._optimizer_state(fetch), rng_state(), None, {})

    def _weights(self, fetch: Fetch) -> Weights:
        layout = self._layout
        buffers = self.plain_model.named_buffers()
        tensors = {name: Pending.of(buffer) for name, buffer in buffers if name in layout.names}
        for index, (name, _) in enumerate(layout.parameters):
            tensors[name] = fetch(index, "weight")
        assert tensors.keys() == layout.names, "a weight that is not trained has no place in this engine"
        return Weights(tensors, layout.aliases)

    def _with_buffers_copied(self, weights: Weights) -> Weights:
        """The module's own buffers are no part of a share."""
        trained = {name for name, _ in self._layout.parameters}
        own = {name: item for name, item in weights.tensors.items() if name not in trained}
        found = frozen_weights(Weights(own, {}), self._buffers).tensors
        self._buffers.finish()
        return Weights({**weights.tensors, **found}, weights.aliases)

    def _optimizer_state(self, fetch: Fetch) -> OptimizerState:
        steps = torch.tensor(self._partition.steps())
        state = {
            index: {"step": steps, **{key: fetch(index, key) for key in MOMENTS}}
            for index in range(len(self._layout.parameters))
        }
        now = self._model.optimizer.param_groups
        groups = [{**old, "lr": new["lr"]} for old, new in zip(self._layout.settings, now, strict=True)]
        return OptimizerState(self._layout.groups, {"state": state, "param_groups": groups})

    def _pending(self, index: int, kind: str) -> Pending:
        number = index * len(KINDS) + KINDS.index(kind)
        return Pending(torch.float32, self._layout.parameters[index][1], partial(self._relay.ask, number))

    def _part(self, number: int) -> torch.Tensor:
        index, kind = divmod(number, len(KINDS))
        name, _ = self._layout.parameters[index]
        return self._partition.weight(name) if kind == 0 else self._partition.moment(name, KINDS[kind])

    def _load_moments(self, state: dict[str, Any]) -> None:
        """Every process reads the file and keeps its share, one tensor at a time."""
        moments = state["state"]
        if not moments:
            return
        self._partition.begin(float(moments[0]["step"].fetch()))
        for index, (name, _) in enumerate(self._layout.parameters):
            for key in MOMENTS:
                self._partition.set_moment(name, key, moments[index][key].fetch())


def _load_whole(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Weights go in before DeepSpeed takes the model apart; the moments are checked now and put in afterwards."""
    from lmbatch.checkpoint import load_model_weights

    load_model_weights(folder, model)
    return read_optimizer_state(folder, model, optimizer)


def check_built(asked: EngineConfig, engine: Any, partition: Partition, *, world: int, total: int) -> None:
    """Raises LaunchError if DeepSpeed built another stage, did not offload, or shared nothing out."""
    stage = int(engine.zero_optimization_stage())
    offloaded = bool(engine.zero_cpu_offload()) if stage else False
    if stage != asked.zero_stage or offloaded != (asked.offload_optimizer == "cpu"):
        raise LaunchError(
            f"asked for {asked.label}, but DeepSpeed built stage {stage}{' with offload' if offloaded else ''}",
            remedy="unset the variables ACCELERATE_DEEPSPEED_*",
        )
    if int(engine.dp_world_size) != world:
        raise LaunchError(f"{world} processes, but DeepSpeed shares out over {engine.dp_world_size}")
    if stage and world > 1 and partition.elements() >= total:
        raise LaunchError(f"this process steps {partition.elements():,} of {total:,} parameters: nothing is shared out")
