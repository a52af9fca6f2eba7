"""`lmbatch simulate`: a large job played through, with this project's own policies and failures from a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import click

from lmbatch.cli.common import (
    config_option,
    human_bytes,
    human_seconds,
    json_option,
    print_json,
    print_table,
    progress_bar,
    set_option,
)
from lmbatch.cli.preprocess import load_site, site_option
from lmbatch.config import PreprocessConfig, TrainConfig, load_config
from lmbatch.config.base import parse_bytes
from lmbatch.errors import UsageError
from lmbatch.preprocess import Plan, load_plan
from lmbatch.simulate import (
    PreprocessCase,
    PreprocessOutcome,
    TrainCase,
    TrainOutcome,
    imagined_plan,
    simulate_preprocess,
    simulate_training,
)
from lmbatch.simulate.machines import Nodes
from lmbatch.simulate.workers import Costs
from lmbatch.store import open_store

PREPROCESS_EPILOG = """\b
Examples:
  lmbatch simulate preprocess --config configs/corpora/wudao.yaml --site configs/sites/example.yaml --tasks 10000
  lmbatch plan preprocess --config C --save && lmbatch simulate preprocess --plan s3://bucket/wudao --site S
  lmbatch simulate preprocess --config C --site S --tasks 10000 --nodes 64 --places 16 --node-failure-hours 4000 \\
    --preemption-hours 24 --deaths 0.001

The driver, its batches, throttles, retries and heartbeats are the real ones, and so are the site's limits. Speed and
start are yours to give: `lmbatch plan preprocess` measures them. The same seed gives the same outcome.
"""
TRAIN_EPILOG = """\b
Examples:
  lmbatch simulate train --config configs/train/gpt2_zh.yaml --site configs/sites/example.yaml --step-seconds 2
  lmbatch simulate train --config C --site S --nodes 128 --days 30 --node-failure-hours 4320 --preemption-hours 24 \\
    --save-every 100 --save-every 500 --save-every 2000

Checkpoints are committed, verified, walked back over and pruned by the real code (a few bytes each), the real batch
script says what becomes of a job, the real ledger counts the steps that are lost. What a step, a save and a start take
is yours to give: `lmbatch plan train` and the ledger of a run (`lmbatch status RUN`) tell.
"""


_seed = click.option("--seed", default=0, show_default=True, help="Of the failures.")
_failures = click.option(
    "--node-failure-hours", type=float, default=math.inf, help="Mean time between failures of one node; default: never."
)
_repair = click.option("--repair-hours", type=float, default=4.0, show_default=True, help="Until a dead node is back.")
_detect = click.option(
    "--detect-seconds", type=float, default=300.0, show_default=True, help="Until Slurm notices (SlurmdTimeout)."
)
_requeue = click.option(
    "--requeue-seconds", type=float, default=120.0, show_default=True, help="Until a requeued job may start."
)


@click.group()
def command() -> None:
    """Play a large job through before it is run: how long, what is lost, what the store and Slurm have to bear."""


@command.command(epilog=PREPROCESS_EPILOG)
@click.option("--config", "config_path", type=click.Path(dir_okay=False), help="Corpus config, for --tasks.")
@click.option("--plan", "planned", metavar="STORE", help="The plan in this store, instead of --config and --tasks.")
@site_option
@click.option("--tasks", default=10_000, show_default=True, help="Tasks of the corpus.")
@click.option("--task-bytes", help="Input of each; default: tasks.bytes of the config.")
@click.option("--speed", default="30MB", show_default=True, help="Input of one core in a second.")
@click.option("--startup-seconds", default=3.0, show_default=True, help="Until a process begins its first task.")
@click.option("--nodes", default=64, show_default=True, help="Nodes of the cluster.")
@click.option("--places", default=16, show_default=True, help="Elements of an array that a node runs at a time.")
@click.option("--deaths", default=0.0, show_default=True, help="Share of tasks at which a process dies.")
@click.option("--preemption-hours", type=float, default=math.inf, help="Mean time to the preemption of an element.")
@_failures
@_repair
@_detect
@_requeue
@_seed
@set_option
@json_option
def preprocess(
    config_path: str | None, planned: str | None, site: str | None, tasks: int, task_bytes: str | None,
    speed: str, startup_seconds: float,
    nodes: int, places: int, deaths: float, preemption_hours: float, node_failure_hours: float, repair_hours: float,
    detect_seconds: float, requeue_seconds: float, seed: int, sets: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Play the tokenizing of a corpus through, as array jobs of a Slurm site."""
    case = PreprocessCase(
        Costs(_size("--speed", speed), startup=startup_seconds, deaths=deaths),
        Nodes(nodes, places, node_failure_hours, repair_hours * 3600, detect_seconds, requeue_seconds),
        hours_between_preemptions=preemption_hours, seed=seed,
    )  # fmt: skip
    plan = load_plan(open_store(planned)) if planned else _imagined(config_path, sets, tasks, task_bytes)
    with progress_bar("simulation", "tasks") as update:
        outcome = simulate_preprocess(
            plan, load_site(site).slurm, case, lambda now: update(now.tasks_done, now.tasks, f"{now.running} batches")
        )
    if as_json:
        print_json(outcome.to_dict())
    else:
        _show_preprocess(outcome)


def _imagined(config_path: str | None, sets: Sequence[str], tasks: int, task_bytes: str | None) -> Plan:
    if config_path is None:
        raise UsageError("give --config, or --plan with a store that holds a plan")
    config = load_config(PreprocessConfig, config_path, list(sets))
    return imagined_plan(config, tasks, _size("--task-bytes", task_bytes) if task_bytes else config.tasks.bytes)


def _show_preprocess(outcome: PreprocessOutcome) -> None:
    print_table(
        ("", ""),
        [
            ("tasks done", f"{outcome.done:,} of {outcome.tasks:,} ({human_bytes(outcome.input_bytes)})"),
            ("tasks begun", f"{outcome.tried:,}"),
            ("time", f"{human_seconds(outcome.seconds)} (without starts, waits and failures: "
                     f"{human_seconds(outcome.ideal_seconds)})"),
            ("useful share of the places' time", f"{outcome.useful_share:.1%}"),
            ("elements at a time, waiting", f"{outcome.most_running:,}, {outcome.most_waiting:,}"),
            ("what happened", _counts(outcome.events)),
            ("commands to Slurm", f"{_counts(outcome.calls)}; {outcome.calls_per_minute:.1f} a minute"),
            ("requests to the store", f"{outcome.worker_requests:,} of workers, "
             f"{outcome.driver_requests:,} of the driver"),
        ],
    )  # fmt: skip
    if outcome.failed:
        click.echo(f"it would have failed: {outcome.failed}")


@command.command(epilog=TRAIN_EPILOG)
@config_option
@site_option
@click.option("--days", default=30.0, show_default=True, help="How long to simulate, if the run is not done before.")
@click.option("--steps", type=int, help="Steps of the run; default: `steps` of the config, else it goes on for --days.")
@click.option("--nodes", type=int, help="Nodes of the job; default: train.nodes of the site.")
@click.option("--step-seconds", default=1.0, show_default=True, help="One optimizer step.")
@click.option("--stall-seconds", default=0.5, show_default=True, help="What training waits for a save.")
@click.option("--write-seconds", default=20.0, show_default=True, help="From then until the save is committed.")
@click.option("--startup-seconds", default=90.0, show_default=True, help="From a job's start to its first step.")
@click.option("--queue-seconds", default=120.0, show_default=True, help="Until a job has its nodes.")
@click.option("--checkpoint-bytes", default="1GiB", show_default=True, help="Size of a checkpoint.")
@click.option("--save-every", multiple=True, type=int, help="Instead of save.every; several are compared.")
@click.option("--preemption-hours", type=float, default=math.inf, help="Mean time between preemptions of the job.")
@click.option("--hang-hours", type=float, default=math.inf, help="Mean time between hangs of a process.")
@click.option("--damage", default=0.0, show_default=True, help="Share of checkpoints of which a byte goes bad.")
@click.option("--bad-nodes", default=0.0, show_default=True, help="Share of starts with a node that is not fit.")
@_failures
@_detect
@_requeue
@_seed
@set_option
@json_option
def train(
    config_path: str, site: str | None, days: float, steps: int | None, nodes: int | None, step_seconds: float,
    stall_seconds: float, write_seconds: float, startup_seconds: float, queue_seconds: float, checkpoint_bytes: str,
    save_every: tuple[int, ...], preemption_hours: float, hang_hours: float, damage: float, bad_nodes: float,
    node_failure_hours: float, detect_seconds: float, requeue_seconds: float, seed: int, sets: tuple[str, ...],
    as_json: bool,
) -> None:  # fmt: skip
    """Play a training run through, from its first job to its end."""
    where = load_site(site).train
    if nodes is not None:
        where = where.model_copy(update={"nodes": nodes})
    given = load_config(TrainConfig, config_path, list(sets))
    case = TrainCase(
        Nodes(where.nodes, 1, node_failure_hours, detect=detect_seconds, requeue=requeue_seconds),
        days=days, steps=steps or given.steps, step=step_seconds, stall=stall_seconds, write=write_seconds,
        startup=startup_seconds, queue=queue_seconds, checkpoint_bytes=_size("--checkpoint-bytes", checkpoint_bytes),
        hours_between_preemptions=preemption_hours, hours_between_hangs=hang_hours, damage=damage, bad_node=bad_nodes,
        seed=seed,
    )  # fmt: skip
    settings = [[*sets, f"save.every={every}"] for every in save_every] or [list(sets)]
    configs = [load_config(TrainConfig, config_path, each) for each in settings]
    outcomes = []
    with progress_bar("simulation", "days") as update:
        for number, config in enumerate(configs):

            def note(done: float, total: float, number: int = number) -> None:
                share = number + done / total
                update(share * days, len(configs) * days, f"save.every {configs[number].save.every}")

            outcomes.append(simulate_training(config, where, case, note))
    if as_json:
        print_json([{"save_every": config.save.every} | outcome.to_dict()
                    for config, outcome in zip(configs, outcomes, strict=True)])  # fmt: skip
    else:
        _show_training(configs, outcomes)


def _show_training(configs: Sequence[TrainConfig], outcomes: Sequence[TrainOutcome]) -> None:
    print_table(
        ("save.every", "goodput", "steps", "lost", "attempts", "saves", "passed over", "by hand", "store requests",
         "sent"),
        [
            (config.save.every, f"{found.goodput:.2%}", f"{found.steps:,}", f"{found.steps_lost:,}", found.attempts,
             f"{found.saves:,}", found.passed_over, found.gave_up, f"{found.uploaded.requests:,}",
             human_bytes(found.uploaded.bytes_up))
            for config, found in zip(configs, outcomes, strict=True)
        ],
    )  # fmt: skip
    for config, found in zip(configs, outcomes, strict=True):
        click.echo(f"save.every {config.save.every}: attempts ended by {_counts(found.ends)}")
        spent = ", ".join(f"{what} {human_seconds(seconds)}" for what, seconds in found.spent.items() if seconds)
        click.echo(f"    time besides steps that count: {spent}")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "nothing"


def _size(option: str, text: str) -> int:
    try:
        size = parse_bytes(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None
    if not isinstance(size, int) or size < 1:
        raise UsageError(f"{option} must be at least 1")
    return size
