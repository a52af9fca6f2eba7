"""`lmbatch plan train`: memory, hours, checkpoints and losses of a run, before its first GPU hour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from lmbatch.cli.common import json_option, print_json, progress_bar, set_option
from lmbatch.cli.prediction import print_prediction, print_published
from lmbatch.config import SiteConfig, TrainConfig, load_config
from lmbatch.config.base import parse_bytes
from lmbatch.config.load import read_layers
from lmbatch.errors import UsageError
from lmbatch.estimate.devices import DEVICES, Device, find_device
from lmbatch.estimate.machine import this_machine
from lmbatch.estimate.prediction import MFU, RESTART_SECONDS, Place, Rates
from lmbatch.estimate.published import beside, published_run
from lmbatch.estimate.saves import HASH_SPEED, MEMORY_SPEED, Speeds
from lmbatch.launch.train_probe import PROBE_SECONDS, probe_training
from lmbatch.train.folder import RunFolder
from lmbatch.train.planning import corpus_of, keep_prediction, prediction_of, setting_of, shape_of_config, work_of

EPILOG = """\b
Examples:
  lmbatch plan train configs/train/gpt2_zh.yaml --on configs/sites/example.yaml --device "A100 80"
  lmbatch plan train configs/train/s0_gpt2.yaml --accelerate configs/accelerate/single_3090.yaml --device "RTX 3090"
  lmbatch plan train configs/train/gpt2_zh.yaml --device "RTX 3090" --tokens 30G --set batch.micro=16
  lmbatch plan train configs/train/demo.yaml --probe              really train on this machine for a minute
  lmbatch plan train configs/train/gpt2_zh.yaml --on configs/sites/example.yaml --preemptions-per-day 4

Needs no torch for the common types of models. With --save the prediction goes into the run's folder (every start of
training puts one there too), and `lmbatch status` compares it with what happens.
"""
_PRECISIONS = {"no": "fp32", "bf16": "bf16", "fp16": "fp16"}
_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


_PLACE = (
    click.option("--on", "site_path", type=click.Path(dir_okay=False), help="Site file (YAML)."),
    click.option("--device", help='Such as "RTX 3090", "A100 80" or cpu; default: the site\'s, or this machine\'s.'),
    click.option("--nodes", type=click.IntRange(min=1), help="Nodes; default: the site's."),
    click.option("--processes", type=click.IntRange(min=1), help="Processes of a node; default: the site's."),
    click.option("--accelerate", type=click.Path(exists=True, dir_okay=False), help="A file that says the precision."),
    click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), help="Where the config leaves it open."),
)
_CORPUS = (
    click.option("--tokens", help="Tokens of one epoch, such as 1.5G; default: the manifest's."),
    click.option("--vocab", type=click.IntRange(min=1), help="Entries of the tokenizer; default: the manifest's."),
)
_RATES = (
    click.option("--mfu", type=click.FloatRange(0, 1, min_open=True), default=MFU, show_default=True,
                 help="Share of the device's peak that is reached."),
    click.option("--preemptions-per-day", type=click.FloatRange(min=0), help="Default: the site's."),
    click.option("--restart-seconds", type=click.FloatRange(min=0), default=RESTART_SECONDS, show_default=True,
                 help="From a preemption to the first new step."),
    click.option("--write-speed", help="Of the run folders' disk, per second, such as 2GB."),
    click.option("--upload-speed", help="To save.store, per second, such as 200MB."),
    click.option("--price-gb-month", type=click.FloatRange(min=0), help="Of a GB in the store for a month."),
    click.option("--price-1000-writes", type=click.FloatRange(min=0), help="Of 1,000 writes to the store."),
    click.option("--price-gpu-hour", type=click.FloatRange(min=0), help="Of a GPU for an hour."),
)  # fmt: skip


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    """They are many, and none is needed."""
    for option in reversed((*_PLACE, *_CORPUS, *_RATES)):
        function = option(function)
    return function


@click.command(epilog=EPILOG)
@click.argument("config_file", required=False, type=click.Path(dir_okay=False))
@click.option("--config", "config_option", type=click.Path(dir_okay=False), help="The same, as other verbs have it.")
@_options
@click.option("--probe", is_flag=True, help="Train on this machine for a while instead of believing --mfu.")
@click.option(
    "--probe-seconds",
    type=click.FloatRange(min=0),
    default=PROBE_SECONDS,
    show_default=True,
    help="How long, after the first step.",
)
@click.option("--save", is_flag=True, help="Keep the prediction in the run's folder.")
@set_option
@json_option
def train(
    config_file: str | None, config_option: str | None, site_path: str | None, sets: tuple[str, ...],
    probe: bool, probe_seconds: float, save: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Say what training CONFIG_FILE takes: memory by part, hours, checkpoints, notice, losses."""
    path = Path(_one_of(config_file, config_option))
    config = load_config(TrainConfig, path, sets)
    site = load_config(SiteConfig, site_path) if site_path else None
    precision = precision_of(config, options["accelerate"], options["precision"])
    published = published_run(path)
    corpus = corpus_of(config, tokens=_count(options["tokens"]), vocabulary=options["vocab"], published=published)
    place, world = _place(site, precision, config, options)
    rates = _rates(site, options)
    if probe:
        rates = _probed(
            config, corpus.vocabulary, rates, world=world, precision=precision, place=place, seconds=probe_seconds
        )
    setting = setting_of(config, world=world, precision=precision, on_gpu=place.device != "cpu")
    shape = shape_of_config(config, corpus.vocabulary, setting.compute)
    work = work_of(config, corpus, published)
    found = prediction_of(config, shape, setting, work, place, rates, precision=precision)
    if save:
        keep_prediction(RunFolder.of(config.run).path, found)
    theirs = None if published is None else beside(published, shape, found.tokens_per_second)
    if as_json:
        print_json({**found.model_dump(mode="json"), "total_memory": found.memory.total, "corpus": corpus.source,
                    "published": None if theirs is None else published_as_dict(theirs)})  # fmt: skip
        return
    print_prediction(found, corpus.source)
    if theirs is not None:
        print_published(theirs, found)


def published_as_dict(theirs: Any) -> dict[str, Any]:
    """For ``--json``."""
    return {**theirs.published.model_dump(), "tokens_per_second": theirs.tokens_per_second, "mfu": theirs.mfu,
            "our_hours": theirs.our_hours}  # fmt: skip


def precision_of(config: TrainConfig, accelerate: str | None, asked: str | None) -> str:
    """The config's, else that of the accelerate file, else what was asked for, else fp32."""
    if config.precision != "launcher":
        return config.precision
    if accelerate is not None:
        return _PRECISIONS.get(str(read_layers(Path(accelerate)).get("mixed_precision", "no")), "fp32")
    return asked or "fp32"


def _one_of(argument: str | None, option: str | None) -> str:
    if (argument is None) == (option is None):
        raise UsageError("plan train: which config?", remedy="give one: lmbatch plan train configs/train/NAME.yaml")
    return argument or option or ""


def _place(site: SiteConfig | None, precision: str, config: TrainConfig, options: dict[str, Any]) -> tuple[Place, int]:
    """Where it runs, and on how many processes."""
    train = site.train if site is not None else None
    each = options["processes"] or (train.processes_per_node if train else 1)
    nodes = options["nodes"] or (train.nodes if train else 1)
    notice = float(train.notice_seconds) if train else None
    memory = train.memory if train else None
    name = options["device"] or (train.device if train else None)
    if name is None and train is not None:
        name = "unknown GPU" if train.gpus_per_node else "cpu"
    if name is None or name == "cpu":
        machine = this_machine()
        if name is None and machine.gpu is not None:
            return _of(machine.gpu, machine.gpu_memory, precision, config, each, notice, machine.memory), each * nodes
        room = (memory or machine.memory) // each if train is None or memory else None
        return Place("cpu", room, config.peak_flops, each, notice, memory), each * nodes
    return _of(name, None, precision, config, each, notice, memory), each * nodes


def _of(
    name: str, memory: int | None, precision: str, config: TrainConfig, each: int, notice: float | None,
    host: int | None,
) -> Place:  # fmt: skip
    device = find_device(name)
    if device is None and memory is None and name != "unknown GPU":
        known = ", ".join(sorted({item.name for item in DEVICES}))
        raise UsageError(f"--device {name}: not in the table of devices", remedy=f"one of {known}, or cpu")
    peak = config.peak_flops or _peak(device, precision)
    room = memory or (int(device.memory * device.usable) if device else None)
    return Place(device.name if device else name, room, peak, each, notice, host)


def _peak(device: Device | None, precision: str) -> float | None:
    if device is None:
        return None
    peak = device.peak(precision)
    if peak is None:
        raise UsageError(
            f"a {device.name} cannot do {precision}", remedy=f"set precision to one of {', '.join(device.peaks)}"
        )
    return peak


def _rates(site: SiteConfig | None, options: dict[str, Any]) -> Rates:
    train = site.train if site is not None else None
    asked = options["preemptions_per_day"]
    usual = Speeds()
    speeds = Speeds(
        write=_size(options["write_speed"]) or (train.write_speed if train else None) or usual.write,
        upload=_size(options["upload_speed"]) or (train.upload_speed if train else None) or usual.upload,
    )
    return Rates(
        mfu=options["mfu"], speeds=speeds, restart=options["restart_seconds"],
        preemptions_per_day=asked if asked is not None else (train.preemptions_per_day if train else 0.0),
        gb_month=options["price_gb_month"], thousand_writes=options["price_1000_writes"],
        gpu_hour=options["price_gpu_hour"],
    )  # fmt: skip


def _probed(
    config: TrainConfig, vocabulary: int, rates: Rates, *, world: int, precision: str, place: Place, seconds: float
) -> Rates:
    """The rates with what a probe of one process on this machine found, times the number of processes."""
    own = this_machine().gpu
    here = find_device(own) if own is not None else None
    if place.device != (here.name if here is not None else own or "cpu"):
        raise UsageError(
            f"--probe measures this machine, which has {own or 'no GPU'}, not {place.device}",
            remedy="run it on a node of the cluster, or leave --device and --probe out of one command",
        )
    with progress_bar("probe", "s") as update:
        found = probe_training(
            config, vocabulary=vocabulary, world=world, precision=precision, seconds=seconds,
            on_progress=lambda done, total, note: update(done, total, note),
        )  # fmt: skip
    # What is left of writing when the hash is taken away, which the arithmetic adds again.
    writing = max(found.write_seconds - found.checkpoint_bytes / HASH_SPEED, found.checkpoint_bytes / MEMORY_SPEED)
    speeds = rates.speeds.model_copy(update={"write": found.checkpoint_bytes / writing, "measured": True})
    return replace(rates, speed=found.tokens_per_second * world, speeds=speeds)


def _size(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(parse_bytes(text))
    except ValueError as error:
        raise UsageError(f"a speed: {error}") from None


def _count(text: str | None) -> int | None:
    """``1.5G`` → 1,500,000,000."""
    if text is None:
        return None
    unit = _UNITS.get(text[-1:].upper())
    try:
        count = int(float(text[:-1]) * unit) if unit else int(float(text))
    except ValueError:
        raise UsageError(f"--tokens {text}: not a number", remedy="write such as 1500000000 or 1.5G") from None
    if count < 1:
        raise UsageError("--tokens must be at least 1")
    return count
