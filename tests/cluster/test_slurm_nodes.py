"""Nodes that go away in the middle of a task: without power, and with notice."""

from __future__ import annotations

import pytest

from support.slurm_site import NODES, Site, wait_until

pytestmark = pytest.mark.slow  # Slurm takes its time to give up a node


def test_a_node_without_power_in_the_middle_changes_no_byte(site: Site) -> None:
    driver = site.start(held=True)
    victim = site.cluster.settings.names[NODES - 1]
    wait_until(lambda: victim in site.waiting())
    site.cluster.kill_node(NODES)
    site.gate.touch()
    site.finish(driver)
    site.assert_same_bytes()
    site.cluster.start_node(NODES)
    wait_until(
        lambda: site.cluster.run("sinfo", "-h", "-N", "-p", "main", "-o", "%t").stdout.split() == ["idle"] * NODES
    )


def test_preempted_elements_start_again_and_change_no_byte(site: Site) -> None:
    driver = site.start(held=True, partition="scav")
    wait_until(lambda: len(site.waiting()) == 4)
    urgent = site.cluster.run("sbatch", "-p", "urgent", "-N", str(NODES), "--exclusive", "-o", "/dev/null",
                              "--wrap", "sleep 1")  # fmt: skip
    assert urgent.returncode == 0
    wait_until(lambda: "PENDING" in site.queue() and "scav" not in running_partitions(site))
    site.gate.touch()
    site.finish(driver)
    site.assert_same_bytes()


def running_partitions(site: Site) -> list[str]:
    return site.cluster.run("squeue", "-h", "-t", "R,CG", "-o", "%P").stdout.split()
