"""Simulated time, and a store that takes it."""

from __future__ import annotations

import math

import pytest

from lmbatch.errors import ObjectNotFoundError
from lmbatch.simulate.machines import Chance
from lmbatch.simulate.store import SimulatedStore
from lmbatch.simulate.world import World


def test_events_come_in_order_and_may_plan_others() -> None:
    world, seen = World(), []

    def first() -> None:
        seen.append(("first", world.now))
        world.after(1.0, lambda: seen.append(("planned", world.now)))

    world.after(3.0, lambda: seen.append(("last", world.now)))
    world.after(1.0, first)
    world.after(1.0, lambda: seen.append(("second", world.now)))
    world.after(math.inf, lambda: seen.append(("never", world.now)))
    world.sleep(2.5)
    assert seen == [("first", 1.0), ("second", 1.0), ("planned", 2.0)]
    assert world.monotonic() == 2.5
    world.sleep(10)
    assert seen[-1] == ("last", 3.0)


def test_a_store_shares_its_objects_and_counts_apart() -> None:
    world, objects = World(), dict[str, bytes]()
    mine, theirs = SimulatedStore(objects, world, 0.5), SimulatedStore(objects)
    assert theirs.publish("a/1", b"x")
    assert not theirs.publish("a/1", b"y")
    assert theirs.publish("a/1", b"x")
    theirs.put("b/2", b"zz")
    assert (world.now, theirs.traffic.total().put) == (0.0, 4)
    assert [(info.key, info.size) for info in mine.list("a/")] == [("a/1", 1)]
    assert list(mine.read_many(["a/1", "none", *["b/2"] * 31])) == [b"x", None, *[b"zz"] * 31]
    assert world.now == 0.5 + 2 * 0.5  # a page of names, and 33 requests, 32 of them side by side
    with pytest.raises(ObjectNotFoundError, match="memory://store/none"):
        mine.read("none")
    mine.delete("a/1")
    assert not theirs.exists("a/1")


def test_waits_have_the_mean_that_was_asked_for() -> None:
    chance = Chance(1)
    waits = [chance.wait(2.0) for _ in range(4000)]
    assert sum(waits) / len(waits) == pytest.approx(7200, rel=0.05)
    sizes = [chance.around(10.0, 0.5) for _ in range(4000)]
    assert sum(sizes) / len(sizes) == pytest.approx(10, rel=0.05)
    assert chance.wait(math.inf) == math.inf
    assert chance.around(10.0, 0.0) == 10.0
