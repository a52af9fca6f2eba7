"""From Slurm's variables to torch's."""

from __future__ import annotations

import pytest

from lmbatch.errors import LaunchError
from lmbatch.train.slurm import first_host, node_names, rank_environment, rendezvous_port

SRUN = {
    "SLURM_JOB_ID": "4711", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
}  # fmt: skip


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu01", "gpu01"),
        ("gpu[003-007,9],login", "gpu003"),
        ("login,gpu[1-2]", "login"),
        ("rack[2-3]node[04,11]", "rack2node04"),
        ("n[12].site.example", "n12.site.example"),
    ],
)
def test_the_first_of_slurms_node_names(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_all_of_slurms_node_names() -> None:
    assert node_names("gpu[008-010,3],login,r[1-2]n[1,7].x") == [
        "gpu008", "gpu009", "gpu010", "gpu3", "login", "r1n1.x", "r1n7.x", "r2n1.x", "r2n7.x",
    ]  # fmt: skip


def test_a_task_of_srun_learns_its_rank_and_where_to_meet() -> None:
    assert rank_environment(SRUN) == {
        "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "gpu007",
        "MASTER_PORT": str(rendezvous_port(SRUN)),
    }  # fmt: skip


def test_what_the_batch_script_has_chosen_is_kept() -> None:
    found = rank_environment({**SRUN, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "2345"})
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("10.0.0.1", "2345")


@pytest.mark.parametrize("change", [{"RANK": "0"}, {"SLURM_STEP_NUM_TASKS": "1"}])
def test_one_task_and_another_launcher_are_left_alone(change: dict[str, str]) -> None:
    assert rank_environment({**SRUN, **change}) == {}
    assert rank_environment({}) == {}


def test_a_container_without_slurms_variables_is_an_error_that_names_the_first() -> None:
    without = {key: value for key, value in SRUN.items() if key != "SLURM_LOCALID"}
    with pytest.raises(LaunchError, match=r"4 tasks, but SLURM_LOCALID is not set"):
        rank_environment(without)


def test_ports_lie_below_the_ephemeral_range_and_differ_between_attempts() -> None:
    ports = [
        rendezvous_port({"SLURM_JOB_ID": str(job), "SLURM_RESTART_COUNT": str(restart)})
        for job in (1, 1250, 3_297_642)
        for restart in range(16)
    ]
    assert all(12000 <= port < 32000 for port in ports)
    assert len(set(ports)) == len(ports)
    assert rendezvous_port({"SLURM_JOB_ID": "7"}) == rendezvous_port({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "0"})
