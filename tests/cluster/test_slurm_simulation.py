"""The simulation against a real cluster: the same plan at the same site is dealt out as by the real driver."""

from __future__ import annotations

import json

from lmbatch.config import SiteConfig, load_config
from lmbatch.launch.slurm_commands import parse_limits
from lmbatch.preprocess import load_plan, read_facts
from lmbatch.simulate import PreprocessCase, simulate_preprocess
from lmbatch.simulate.machines import Nodes
from lmbatch.simulate.workers import Costs
from lmbatch.store import open_store
from support.slurm_site import NODES, Site


def test_as_many_arrays_elements_and_tries_as_the_real_run_has_had(site: Site) -> None:
    site.run(max_parallel=2)
    store = open_store(str(site.base / "store"))
    plan = load_plan(store)
    batches = [json.loads(path.read_text())["batches"] for path in site.jobs.glob("*/slurm-*/batches.json")]
    facts = list(read_facts(store, [task.id for task in plan.tasks]))
    seconds, size = sum(one.seconds for one in facts), sum(one.input_bytes for one in facts)

    found = simulate_preprocess(
        plan,
        load_config(SiteConfig, str(site.base / "site.yaml"), []).slurm,
        PreprocessCase(
            Costs(bytes_per_second=size / seconds, startup=3.0),
            Nodes(count=NODES, places=1),
            limits=parse_limits(site.cluster.run("scontrol", "show", "config").stdout),
        ),
    )
    assert (found.done, found.failed) == (len(plan.tasks), None)
    assert found.tried == len(facts)
    assert found.events["arrays"] == len(batches)
    assert found.events["elements"] == sum(map(len, batches))
    assert found.calls["sbatch"] == len(batches)
