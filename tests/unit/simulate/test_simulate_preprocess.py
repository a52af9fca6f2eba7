"""The real driver on a cluster of numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lmbatch.config import PreprocessConfig, SlurmSite
from lmbatch.errors import UsageError
from lmbatch.launch.slurm_commands import Limits
from lmbatch.simulate import PreprocessCase, imagined_plan, simulate_preprocess
from lmbatch.simulate.machines import Nodes
from lmbatch.simulate.workers import Costs

MIB = 2**20
CONFIG = PreprocessConfig.model_validate(
    {
        "corpus": {"name": "imagined", "raw": "/none", "format": "json_lines", "include": ["*"]},
        "tokenizer": {"path": "/none"},
    }
)
SITE = SlurmSite(max_parallel=20, batch_bytes=64 * MIB)
QUIET = PreprocessCase(Costs(MIB, spread=0.0), Nodes(count=8, places=4))
# Twenty elements at a time, each some minutes long.
ROUGH = replace(
    QUIET,
    costs=Costs(MIB, spread=0.3, deaths=0.01),
    nodes=Nodes(count=8, places=4, hours_between_failures=0.5, repair=600),
    hours_between_preemptions=0.5,
)


def outcome_of(case: PreprocessCase, *, tasks: int = 400, site: SlurmSite = SITE, **config: object):
    plan = imagined_plan(CONFIG.model_copy(update=config), tasks, 16 * MIB)
    return simulate_preprocess(plan, site, case)


def test_a_quiet_cluster_does_each_task_once_in_about_the_ideal_time() -> None:
    found = outcome_of(QUIET)
    assert (found.done, found.tried, found.failed) == (400, 400, None)
    assert found.most_running == SITE.max_parallel
    assert found.events == {"arrays": 1, "elements": 100, "starts": 100}
    assert found.ideal_seconds == 400 * 16 / 20
    # Each element of four tasks starts for 3 s and is followed within one pass of the scheduler (5 s).
    assert found.ideal_seconds < found.seconds < found.ideal_seconds * (64 + 3 + 5) / 64 + 15
    assert found.useful_share == pytest.approx(64 / 67, abs=1e-9)


def test_the_same_seed_gives_the_same_outcome_and_another_one_another() -> None:
    first = outcome_of(ROUGH)
    assert first == outcome_of(ROUGH)
    assert first.events != outcome_of(replace(ROUGH, seed=1)).events


def test_whatever_breaks_every_task_is_done_and_the_cost_is_told() -> None:
    found = outcome_of(ROUGH, tasks=1000)
    assert (found.done, found.failed) == (1000, None)
    assert found.events["node failures"] > 0
    assert found.events["preemptions"] > 0
    assert found.tried > 1000
    assert found.useful_share < outcome_of(QUIET).useful_share
    assert found.events["starts"] == found.events["elements"] + found.events["requeues"] - _never_again(found)


def _never_again(found) -> int:
    """Elements that were requeued although their tasks were done: the driver has taken them out of the queue."""
    return found.calls.get("scancel", 0)


def test_a_task_that_always_dies_fails_for_good_after_its_retries() -> None:
    found = outcome_of(replace(QUIET, costs=Costs(MIB, deaths=1.0)), tasks=3, retries=2)
    assert found.done == 0
    assert found.failed is not None
    assert "3 of 3 tasks failed" in found.failed
    assert found.tried == 9


def test_the_limits_of_the_cluster_are_kept_to() -> None:
    found = outcome_of(replace(QUIET, limits=Limits(array=30, jobs=50)))
    assert found.done == 400
    assert found.events["arrays"] >= 4
    assert found.most_running + found.most_waiting <= 50 + SITE.max_parallel


def test_who_looks_at_heartbeats_pays_for_it() -> None:
    silent, usual = outcome_of(QUIET, heartbeat_seconds=0.0), outcome_of(QUIET)
    assert usual.driver_requests > 1.1 * silent.driver_requests
    assert usual.worker_requests > silent.worker_requests


@pytest.mark.parametrize(("tasks", "size"), [(0, 1), (1, 0)])
def test_nothing_to_do_is_refused(tasks: int, size: int) -> None:
    with pytest.raises(UsageError, match="one task at least"):
        imagined_plan(CONFIG, tasks, size)
