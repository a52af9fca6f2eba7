"""What to change where a config does not fit, in the order of what it costs: nothing, a little, time, machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lmbatch.config import EngineConfig
from lmbatch.estimate.memory import Setting, device_memory, largest_micro
from lmbatch.estimate.shape import ModelShape

_CHUNK = 1024


@dataclass(frozen=True)
class Change:
    """``keys`` of the config with which ``total`` bytes are needed, and the ``setting`` that they make."""

    keys: tuple[str, ...]
    total: int
    setting: Setting


def changes(shape: ModelShape, setting: Setting, room: int, *, batch: int) -> tuple[Change, ...]:
    """The least changes that make the model fit into ``room`` bytes, the cheapest first; none if nothing does.

    Each change keeps those before it, and after each the largest micro-batch is looked for.
    """
    keys: tuple[str, ...] = ()
    found = []
    for key, changed in _steps(setting):
        keys = (*keys, key) if key else keys
        micro = largest_micro(shape, changed, room, batch=batch)
        if micro:
            fitting = replace(changed, micro=min(micro, setting.micro))
            own = () if fitting.micro == setting.micro else (f"batch.micro={fitting.micro}",)
            found.append(Change((*own, *keys), device_memory(shape, fitting).total, fitting))
    return tuple(found)


def _steps(setting: Setting) -> Iterator[tuple[str, Setting]]:
    """The setting, each time with one change more; a change that is made already is left out."""
    now = setting
    yield "", now
    if not now.chunk and now.micro * now.sequence > _CHUNK:
        now = replace(now, chunk=_CHUNK)
        yield f"compute.loss_chunk_tokens={_CHUNK}", now
    if not now.checkpointing:
        now = replace(now, checkpointing=True)
        yield "compute.activation_checkpointing=true", now
    if now.world > 1:
        for stage in range(_stage(now.engine) + 1, 4):
            if stage == 1:
                continue  # stage 2 shares out more, and sends as much
            now = replace(now, engine=now.engine.model_copy(update={"name": "deepspeed", "zero_stage": stage}))
            yield f"engine.name=deepspeed, engine.zero_stage={stage}", now
    if now.engine.offload_optimizer == "none":
        stage = max(2, _stage(now.engine))
        changed = {"name": "deepspeed", "zero_stage": stage, "offload_optimizer": "cpu"}
        yield (
            f"engine.name=deepspeed, engine.zero_stage={stage}, engine.offload_optimizer=cpu",
            replace(now, engine=now.engine.model_copy(update=changed)),
        )


def _stage(engine: EngineConfig) -> int:
    return engine.zero_stage if engine.name == "deepspeed" else 0
