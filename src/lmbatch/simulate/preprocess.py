"""Preprocessing a corpus that is not there: the real driver and backend, on a simulated cluster."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lmbatch.config import PreprocessConfig, SlurmSite
from lmbatch.errors import TaskError, UsageError
from lmbatch.launch.preprocess import StageRun
from lmbatch.launch.slurm import SlurmBackend
from lmbatch.launch.slurm_commands import Limits
from lmbatch.launch.watch import Progress
from lmbatch.preprocess import Plan, PlannedPiece, Stage, Task
from lmbatch.simulate.machines import Chance, Nodes
from lmbatch.simulate.slurm import Cluster, SimulatedSlurm
from lmbatch.simulate.store import SimulatedStore
from lmbatch.simulate.workers import Costs, Workers
from lmbatch.simulate.world import World
from lmbatch.store import TokenizerEntry

_TOKENIZER = TokenizerEntry(fingerprint="simulated", size=2, largest_id=1, eod_token="", eod_id=0)


@dataclass(frozen=True, slots=True)
class PreprocessCase:
    """What is simulated. ``latency`` is what a request of the driver to the store takes, ``command`` one to Slurm."""

    costs: Costs
    nodes: Nodes = field(default_factory=Nodes)
    hours_between_preemptions: float = math.inf  # of one running element
    limits: Limits = field(default_factory=lambda: Limits(array=1001, jobs=10_000))  # Slurm's defaults
    latency: float = 0.02
    command: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.costs.bytes_per_second <= 0:
            raise UsageError("a simulation needs a speed above 0")


@dataclass(frozen=True, slots=True)
class PreprocessOutcome:
    """What came of it; times in seconds. ``ideal_seconds``: the same work without a start, a wait or a failure.

    ``useful_share`` is of the time that elements held their places: what went into tasks whose receipt counts.
    ``events`` counts submissions, elements, starts, requeues and failures; ``calls`` the commands to Slurm.
    """

    tasks: int
    input_bytes: int
    done: int
    tried: int
    seconds: float
    ideal_seconds: float
    useful_share: float
    most_running: int
    most_waiting: int
    events: dict[str, int]
    calls: dict[str, int]
    calls_per_minute: float
    driver_requests: int
    worker_requests: int
    failed: str | None

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def simulate_preprocess(
    plan: Plan, site: SlurmSite, case: PreprocessCase, on_progress: Callable[[Progress], None] = lambda _: None
) -> PreprocessOutcome:
    """Do the tasks of a plan (of its last stage, if it has several). The same seed gives the same outcome.

    Nothing of the plan's input or store is touched.
    """
    world, objects = World(), dict[str, bytes]()
    config, chance = plan.config, Chance(case.seed)
    theirs = SimulatedStore(objects)
    workers = Workers(
        world, theirs, {task.id: task for task in plan.tasks}, case.costs, chance, plan=plan.fingerprint,
        heartbeat=config.heartbeat_seconds,
    )  # fmt: skip
    cluster = Cluster(
        world, case.nodes, chance, workers.start, hours_between_preemptions=case.hours_between_preemptions
    )
    workers.cluster = cluster
    slurm = SimulatedSlurm(cluster, case.limits, case.command)
    mine = SimulatedStore(objects, world, case.latency)
    with tempfile.TemporaryDirectory(prefix="lmbatch-simulation-") as folder:
        backend = SlurmBackend(Path(folder), site, slurm, give=slurm.give, clock=world)
        run = StageRun(mine, plan, Stage("tokenize", plan.tasks), backend, Path(folder), on_progress, world)
        failed = _drive(run)
    work = plan.input_bytes / case.costs.bytes_per_second
    places = min(site.max_parallel, case.nodes.count * case.nodes.places, len(plan.tasks))
    return PreprocessOutcome(
        tasks=len(plan.tasks),
        input_bytes=plan.input_bytes,
        done=run.tally.tasks,
        tried=workers.tried,
        seconds=world.now,
        ideal_seconds=work / places,
        useful_share=workers.useful_seconds / cluster.place_seconds,
        most_running=cluster.most_running,
        most_waiting=cluster.most_waiting,
        events=dict(sorted(cluster.counts.items())),
        calls=dict(sorted(slurm.calls.items())),
        calls_per_minute=60 * sum(slurm.calls.values()) / world.now,
        driver_requests=mine.traffic.total().requests,
        worker_requests=workers.requests + theirs.traffic.total().requests,
        failed=failed,
    )


def _drive(run: StageRun) -> str | None:
    try:
        run.drive()
    except TaskError as error:  # tasks that were tried as often as the config allows
        return error.message.splitlines()[0]
    return None


def imagined_plan(config: PreprocessConfig, tasks: int, size: int) -> Plan:
    """A plan of so many tasks of ``size`` bytes each, for which there need be no input."""
    if tasks < 1 or size < 1:
        raise UsageError("a simulation needs one task at least, of one byte at least")
    piece = PlannedPiece(file=0, start=0, end=size, bytes=size)
    named = tuple(Task(id=f"task-{number:06d}", pieces=(piece,)) for number in range(tasks))
    plan = Plan(config=config, raw="memory://raw", tokenizer=_TOKENIZER, dtype="uint16", files=(), tasks=named)
    return plan.sealed()
