"""What an element of an array does with its time: it starts, does its tasks in order, says how far it is, and ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lmbatch.preprocess import Heartbeat, Task
from lmbatch.preprocess.heartbeat import heartbeat_key
from lmbatch.preprocess.task import receipt_key
from lmbatch.simulate.machines import Chance
from lmbatch.simulate.slurm import Cluster, Element
from lmbatch.simulate.store import SimulatedStore
from lmbatch.simulate.world import World
from lmbatch.store import Ledger, Receipt, to_json

_FIRST_BEAT = 1.0  # as `preprocess.pulse` has it


@dataclass(frozen=True, slots=True)
class Costs:
    """What work costs. ``startup`` and ``skip`` (a task that is done already) in seconds, the speed in bytes of input.

    ``spread`` is how much tasks of one size differ (`Chance.around`); ``requests`` go to the stores for a task.
    ``deaths`` is the share of tasks whose process dies at them (too little memory, a bad node, a bug).
    """

    bytes_per_second: float
    startup: float = 3.0
    skip: float = 0.1
    spread: float = 0.15
    requests: int = 20
    deaths: float = 0.0


class Workers:
    """All of them. Receipts are published into the store that the driver looks at."""

    def __init__(
        self, world: World, store: SimulatedStore, tasks: Mapping[str, Task], costs: Costs, chance: Chance,
        *, plan: str, heartbeat: float,
    ) -> None:  # fmt: skip
        self._world, self._store, self._tasks, self._costs, self._chance = world, store, tasks, costs, chance
        self._plan, self._heartbeat = plan, heartbeat
        self.cluster: Cluster
        self.useful_seconds = self.startup_seconds = 0.0  # of work whose receipt was published; of starts
        self.requests = self.tried = self.skipped = 0

    def start(self, element: Element) -> None:
        """A process begins."""
        self.startup_seconds += self._costs.startup
        life = element.life
        if self._heartbeat:
            self._world.after(self._costs.startup + _FIRST_BEAT, lambda: self._beat(element, life, 0))
        self._world.after(self._costs.startup, lambda: self._next(element, life, 0))

    def _next(self, element: Element, life: int, place: int) -> None:
        if element.life != life:
            return
        if place == len(element.batch.tasks):
            self._store.delete(heartbeat_key(_worker(element)))
            self.cluster.end(element, "COMPLETED", 0)
            return
        task = self._tasks[element.batch.tasks[place]]
        if self._store.exists(receipt_key(task.id)):
            self.skipped += 1
            self._world.after(self._costs.skip, lambda: self._next(element, life, place + 1))
            return
        self.tried += 1
        seconds = self._chance.around(task.input_bytes / self._costs.bytes_per_second, self._costs.spread)
        dies = self._chance.happens(self._costs.deaths)
        self._world.after(
            seconds / 2 if dies else seconds,
            (lambda: self._die(element, life)) if dies else lambda: self._done(element, life, place, task, seconds),
        )

    def _done(self, element: Element, life: int, place: int, task: Task, seconds: float) -> None:
        if element.life != life:
            return
        receipt = Receipt(
            task=task.id, plan=self._plan, attempt=f"{element.id}-{life}", engine="simulated", pieces=(), shards=(),
            ledger=Ledger(), seconds=seconds, cpu_seconds=seconds, peak_memory_bytes=0, input_bytes=task.input_bytes,
        )  # fmt: skip
        self.requests += self._costs.requests
        if self._store.publish(receipt_key(task.id), to_json(receipt)):
            self.useful_seconds += seconds
        self._next(element, life, place + 1)

    def _die(self, element: Element, life: int) -> None:
        if element.life == life:
            self.cluster.end(element, "FAILED", 137)

    def _beat(self, element: Element, life: int, number: int) -> None:
        if element.life != life:
            return
        beat = Heartbeat(
            worker=_worker(element), pid=1, space="", job=element.id, task=element.batch.tasks[0], attempt=1,
            beat=number, every=self._heartbeat, file="", bytes=0, bytes_done=0, records=0, documents=0, tokens=0,
            dropped={}, quarantined={}, seconds=0, cpu_seconds=0, memory_bytes=0,
        )  # fmt: skip
        self._store.put(heartbeat_key(beat.worker), to_json(beat))
        self._world.after(self._heartbeat, lambda: self._beat(element, life, number + 1))


def _worker(element: Element) -> str:
    return f"node{element.node}-{element.id}-{element.life}"
