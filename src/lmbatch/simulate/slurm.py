"""A Slurm that runs array jobs on simulated nodes: the queue, the throttles, accounting, and what breaks.

It answers the driver through the interface of `SlurmCommands`, so that the real backend cannot tell the difference.
What an element does is not its business: the cluster starts it, takes it away, and is told when it has ended.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from lmbatch.config import SlurmSite
from lmbatch.launch.backend import TaskBatch
from lmbatch.launch.slurm_commands import Ending, Limits, QueueRow, SlurmCommands
from lmbatch.launch.slurm_submit import Submission
from lmbatch.simulate.machines import Chance, Nodes
from lmbatch.simulate.world import World

Start = Callable[["Element"], None]


@dataclass(eq=False)
class Element:
    """One element of an array. ``life`` counts its starts, so that an event of an earlier one is told from its own."""

    id: str
    batch: TaskBatch
    array: Array
    state: str = "PENDING"
    node: int = -1
    life: int = 0
    began: float = 0.0


@dataclass(eq=False)
class Array:
    """An array job; ``waiting`` may start now, in order."""

    id: str
    name: str
    folder: str
    throttle: int
    waiting: deque[Element] = field(default_factory=deque)
    running: int = 0


class Cluster:
    """Places on nodes, filled from the arrays in the order of their submission, every ``schedule`` seconds."""

    def __init__(
        self, world: World, nodes: Nodes, chance: Chance, start: Start, *, hours_between_preemptions: float,
        schedule: float = 5.0,
    ) -> None:  # fmt: skip
        """``start`` begins the work of an element. Preemptions strike each running element at the given mean rate."""
        self.world, self.nodes, self._chance, self._start = world, nodes, chance, start
        self._preemption, self._schedule = hours_between_preemptions, schedule
        self._free = [nodes.places] * nodes.count
        self._arrays: dict[str, Array] = {}
        self.elements: dict[str, Element] = {}
        self.endings: dict[str, Ending] = {}
        self.counts: Counter[str] = Counter()
        self.most_waiting = self.most_running = 0
        self.place_seconds = 0.0  # that elements have held
        self._numbers = itertools.count(1)
        self._planned = False
        for node in range(nodes.count):
            world.after(chance.wait(nodes.hours_between_failures), partial(self._fail, node))

    def submit(self, submission: Submission, name: str) -> list[str]:
        """A new array; the ids of its elements."""
        array = Array(str(next(self._numbers)), name, str(submission.folder), submission.throttle)
        alone = len(submission.batches) == 1
        for index, batch in enumerate(submission.batches):
            element = Element(array.id if alone else f"{array.id}_{index}", batch, array)
            self.elements[element.id] = element
            array.waiting.append(element)
        self._arrays[array.id] = array
        self.counts["arrays"] += 1
        self.counts["elements"] += len(submission.batches)
        self._plan()
        return [element.id for element in array.waiting]

    def set_throttle(self, array: str, elements: int) -> None:
        """Let so many of an array run at a time."""
        if array in self._arrays:
            self._arrays[array].throttle = elements
            self._plan()

    def end(self, element: Element, state: str, exit_code: int) -> None:
        """It is over, and known to accounting."""
        self._release(element)
        self.endings[element.id] = Ending(state, exit_code, 0, f"node{element.node}")
        self.elements.pop(element.id, None)

    def cancel(self, element: Element) -> None:
        """Taken out by its user."""
        if element.state == "PENDING":
            element.array.waiting = deque(other for other in element.array.waiting if other is not element)
        self.end(element, "CANCELLED", 0)

    def _release(self, element: Element) -> None:
        element.life += 1
        if element.state != "PENDING":
            self.place_seconds += self.world.now - element.began
            element.array.running -= 1
            self._free[element.node] += 1
            self._plan()

    def _fail(self, node: int) -> None:
        """A node loses its power: Slurm requeues what ran on it once it has noticed."""
        self.counts["node failures"] += 1
        for element in [one for one in self.elements.values() if one.node == node and one.state == "RUNNING"]:
            element.life += 1  # nothing of it goes on
            self.world.after(self.nodes.detect, partial(self._lost, element, element.life))
        self._free[node] -= self.nodes.places  # until it is back
        self.world.after(self.nodes.repair, partial(self._repaired, node))

    def _lost(self, element: Element, life: int) -> None:
        if element.life == life and element.id in self.elements:
            self.requeue(element)

    def _repaired(self, node: int) -> None:
        self._free[node] += self.nodes.places
        self.world.after(self._chance.wait(self.nodes.hours_between_failures), partial(self._fail, node))
        self._plan()

    def requeue(self, element: Element) -> None:
        """Back into the queue, as Slurm does it for --requeue."""
        self.counts["requeues"] += 1
        self._release(element)
        element.state, element.node = "PENDING", -1
        self.world.after(self.nodes.requeue, partial(self._wait_again, element, element.life))

    def _wait_again(self, element: Element, life: int) -> None:
        if element.life == life and element.id in self.elements:
            element.array.waiting.append(element)
            self._plan()

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            self.world.after(self._schedule, self._pass)

    def _pass(self) -> None:
        """One pass of the scheduler."""
        self._planned = False
        places = [node for node, free in enumerate(self._free) for _ in range(max(0, free))]
        for array in self._arrays.values():
            while places and array.waiting and array.running < array.throttle:
                self._begin(array.waiting.popleft(), places.pop())
        running = sum(array.running for array in self._arrays.values())
        self.most_running = max(self.most_running, running)
        self.most_waiting = max(self.most_waiting, len(self.elements) - running)

    def _begin(self, element: Element, node: int) -> None:
        element.state, element.node, element.began = "RUNNING", node, self.world.now
        element.array.running += 1
        self._free[node] -= 1
        self.counts["starts"] += 1
        self.world.after(self._chance.wait(self._preemption), partial(self._preempt, element, element.life))
        self._start(element)

    def _preempt(self, element: Element, life: int) -> None:
        if element.life == life and element.state == "RUNNING":
            self.counts["preemptions"] += 1
            self.requeue(element)


class SimulatedSlurm(SlurmCommands):
    """The commands of a driver, each of which takes ``seconds`` and is counted."""

    def __init__(self, cluster: Cluster, limits: Limits, seconds: float = 0.1) -> None:
        self._cluster, self._limits, self._seconds = cluster, limits, seconds
        self.calls: Counter[str] = Counter()

    def give(self, site: SlurmSite, submission: Submission, name: str) -> list[str]:
        """What `launch.slurm_submit.submit` does."""
        self._call("sbatch")
        submission.save()
        return self._cluster.submit(submission, name)

    def limits(self) -> Limits:
        """See SlurmCommands.limits."""
        self._call("scontrol")
        return self._limits

    def queue(self, name: str) -> list[QueueRow]:
        """See SlurmCommands.queue."""
        self._call("squeue")
        return [QueueRow(one.id, one.state, "None", one.array.folder) for one in self._cluster.elements.values()]

    def endings(self, ids: Sequence[str]) -> dict[str, Ending]:
        """See SlurmCommands.endings."""
        if ids:
            self._call("sacct")
        return {one: self._cluster.endings[one] for one in ids if one in self._cluster.endings}

    def set_throttle(self, array: str, elements: int) -> None:
        """See SlurmCommands.set_throttle."""
        self._call("scontrol")
        self._cluster.set_throttle(array, elements)

    def cancel(self, name: str) -> None:
        """See SlurmCommands.cancel."""
        self._call("scancel")
        for element in list(self._cluster.elements.values()):
            self._cluster.cancel(element)

    def cancel_element(self, element: str) -> None:
        """See SlurmCommands.cancel_element."""
        self._call("scancel")
        if (found := self._cluster.elements.get(element)) is not None:
            self._cluster.cancel(found)

    def _call(self, command: str) -> None:
        self.calls[command] += 1
        self._cluster.world.sleep(self._seconds)
