"""The whole prediction for a run: what goes in, and what comes out of the arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import Field

from lmbatch.config import SaveConfig
from lmbatch.config.base import Section
from lmbatch.estimate.advice import changes
from lmbatch.estimate.goodput import Goodput, best_interval, goodput
from lmbatch.estimate.memory import Memory, Setting, device_memory, host_memory, largest_micro
from lmbatch.estimate.saves import Saving, Speeds, saving
from lmbatch.estimate.shape import ModelShape

# What well-kept trainings reach of the peak: GPT-3 21 %, Megatron-Turing NLG 30 %, Gopher 33 %, PaLM 46 %
# (arXiv:2204.02311, table 3). A small model on one GPU lies in between; a probe knows better.
MFU = 0.35
RESTART_SECONDS = 120.0  # until a preempted job is at work again: the queue, the start, the first step


@dataclass(frozen=True)
class Place:
    """Where a run trains. ``room`` are the bytes of one device that processes may use (None: not known), ``flops`` its
    peak in the run's precision, ``notice`` the seconds that a stop is announced before; ``node_memory`` the host's."""

    device: str
    room: int | None
    flops: float | None
    processes_per_node: int = 1
    notice: float | None = None
    node_memory: int | None = None


@dataclass(frozen=True)
class Rates:
    """Assumptions. ``speed`` are tokens per second of all processes that a probe found, else None."""

    mfu: float = MFU
    speed: float | None = None
    speeds: Speeds = field(default_factory=Speeds)
    restart: float = RESTART_SECONDS
    preemptions_per_day: float = 0.0
    gb_month: float | None = None
    thousand_writes: float | None = None
    gpu_hour: float | None = None


@dataclass(frozen=True)
class Work:
    """How much is trained: ``steps`` of ``batch`` samples; ``tokens_per_epoch`` where the corpus is known."""

    steps: int
    batch: int
    tokens_per_epoch: int | None = None


class Costs(Section):
    """In the currency of the prices that were given; None where one was not."""

    gpu_hours: float
    compute: float | None
    stored_per_month: float | None
    writes: float | None


class Prediction(Section):
    """What a run is said to take; ``plan.json`` of its folder, and what `lmbatch plan train --json` prints.

    Bytes, seconds and tokens per second are plain numbers. ``fits`` is None where the device is not known,
    ``tokens_per_second`` None where neither its peak nor a probe is. ``source`` tells where the speed comes from.
    """

    format_version: int = 1
    config: str
    made_by: str = "plan"
    shape: ModelShape
    device: str
    room: int | None
    world: int
    nodes: int
    precision: str
    micro: int
    batch: int
    sequence: int
    engine: str
    memory: Memory
    host: dict[str, int] = Field(default_factory=dict)
    fits: bool | None
    largest_micro: int | None
    changes: tuple[str, ...] = ()
    flops_per_token: float
    mfu: float | None
    source: str
    tokens_per_second: float | None
    steps: int
    tokens: int
    epochs: float | None
    step_seconds: float | None
    seconds: float | None
    saving: Saving
    save_every: int
    notice_needed: float | None
    notice_given: float | None
    preemptions_per_day: float = 0.0
    restart: float = RESTART_SECONDS
    best_save_every: int | None = None
    with_notice: Goodput | None = None
    without_notice: Goodput | None = None
    costs: Costs | None = None
    warnings: tuple[str, ...] = ()

    @property
    def process_memory(self) -> int:
        """Bytes that one process without a GPU has resident at its peak, Python and its libraries included."""
        each = max(1, self.world // self.nodes)
        return self.memory.total + sum(self.host.values()) // each


def predict(
    shape: ModelShape, setting: Setting, work: Work, place: Place, rates: Rates, save: SaveConfig, *, config: str,
    precision: str, asynchronous: bool,
) -> Prediction:  # fmt: skip
    """Put everything together. Pure."""
    memory = device_memory(shape, setting)
    flops = shape.flops_per_token(setting.sequence)
    speed, source = _speed(flops, setting, place, rates)
    tokens = work.steps * work.batch * setting.sequence
    epochs = tokens / work.tokens_per_epoch if work.tokens_per_epoch else None
    step = work.batch * setting.sequence / speed if speed else None
    found = saving(
        shape.parameters, save, steps=work.steps, epochs=int(epochs or 0), speeds=rates.speeds,
        asynchronous=asynchronous, on_gpu=setting.on_gpu,
    )  # fmt: skip
    fits = None if place.room is None else memory.total <= place.room
    host = host_memory(shape, setting, asynchronous=asynchronous, processes_per_node=place.processes_per_node)
    result = Prediction(
        config=config, shape=shape, device=place.device, room=place.room, world=setting.world,
        nodes=max(1, setting.world // place.processes_per_node), precision=precision, micro=setting.micro,
        batch=work.batch, sequence=setting.sequence, engine=setting.engine.label, memory=memory, host=host, fits=fits,
        largest_micro=_largest(shape, setting, place, work), changes=_changes(shape, setting, place, work, fits=fits),
        flops_per_token=flops, mfu=_mfu(flops, setting, place, speed), source=source, tokens_per_second=speed,
        steps=work.steps, tokens=tokens, epochs=epochs, step_seconds=step,
        seconds=work.steps * step + found.count * found.stall if step else None, saving=found, save_every=save.every,
        notice_needed=found.notice(step) if step else None, notice_given=place.notice,
        preemptions_per_day=rates.preemptions_per_day, restart=rates.restart,
    )  # fmt: skip
    result = result if step is None else _with_losses(result, step, rates)
    result = result.model_copy(update={"costs": _costs(result, rates)})
    return result.model_copy(update={"warnings": tuple(_warnings(result, place, rates))})


def _speed(flops: float, setting: Setting, place: Place, rates: Rates) -> tuple[float | None, str]:
    if rates.speed is not None:
        return rates.speed, "probe"
    if place.flops is None:
        return None, "not known: the peak of this device is in no table, and nothing was probed"
    return rates.mfu * place.flops * setting.world / flops, f"MFU {rates.mfu:.0%}"


def _mfu(flops: float, setting: Setting, place: Place, speed: float | None) -> float | None:
    return None if speed is None or place.flops is None else speed * flops / (place.flops * setting.world)


def _largest(shape: ModelShape, setting: Setting, place: Place, work: Work) -> int | None:
    return None if place.room is None else largest_micro(shape, setting, place.room, batch=work.batch)


def _changes(shape: ModelShape, setting: Setting, place: Place, work: Work, *, fits: bool | None) -> tuple[str, ...]:
    if fits is not False or place.room is None:
        return ()
    found = changes(shape, setting, place.room, batch=work.batch)
    return tuple(f"{', '.join(change.keys)} ({change.total / 2**30:.1f} GiB)" for change in found)


def _with_losses(prediction: Prediction, step: float, rates: Rates) -> Prediction:
    rate = rates.preemptions_per_day
    best = best_interval(prediction.saving.stall, rate)
    common = {
        "step": step, "interval": prediction.save_every * step, "stall": prediction.saving.stall,
        "restart": rates.restart, "per_day": rate,
    }  # fmt: skip
    work = prediction.steps * step
    return prediction.model_copy(
        update={
            "best_save_every": max(1, round(best / step)) if best is not None else None,
            "with_notice": goodput(work, with_notice=True, **common),
            "without_notice": goodput(work, with_notice=False, **common),
        }
    )


def _costs(prediction: Prediction, rates: Rates) -> Costs | None:
    if prediction.seconds is None:
        return None
    told = prediction.with_notice.seconds if prediction.with_notice is not None else None
    hours = (told or prediction.seconds) / 3600 * prediction.world
    return Costs(
        gpu_hours=hours,
        compute=None if rates.gpu_hour is None else hours * rates.gpu_hour,
        stored_per_month=None if rates.gb_month is None else prediction.saving.kept / 1e9 * rates.gb_month,
        writes=None if rates.thousand_writes is None else prediction.saving.requests / 1000 * rates.thousand_writes,
    )


def _warnings(prediction: Prediction, place: Place, rates: Rates) -> list[str]:
    found = []
    own = prediction.batch % (prediction.micro * prediction.world)
    if own:
        found.append(
            f"batch.size {prediction.batch} does not divide into {prediction.world} processes × batch.micro "
            f"{prediction.micro}: training would refuse it"
        )
    if prediction.fits is False and not prediction.changes:
        found.append("no setting makes it fit: use a device with more memory, more processes, or a smaller model")
    needed, given = prediction.notice_needed, prediction.notice_given
    if needed is not None and given is not None and needed > given:
        found.append(
            f"a stop needs {needed:.0f} s, but the site's train.notice_seconds (--signal) is {given:.0f}: raise it to "
            f"{_round_up(needed)}, or make steps or checkpoints smaller"
        )
    if place.node_memory is not None and sum(prediction.host.values()) > place.node_memory:
        found.append(
            f"a node needs {sum(prediction.host.values()) / 2**30:.0f} GiB of its own memory, and has "
            f"{place.node_memory / 2**30:.0f}: raise train.memory of the site, or set save.asynchronous=false"
        )
    if prediction.without_notice is not None and prediction.without_notice.share == 0:
        found.append("without notice the run would never end: save more often")
    return found


def _round_up(seconds: float) -> int:
    return int(-(-seconds // 30) * 30)
