"""From Slurm's variables to torch's: one task of srun is one process of the run, with no launcher in between.

Nothing is asked of Slurm's commands, which are not there inside a container; srun's variables are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lmbatch.errors import LaunchError

# Below 32768, where Linux begins to hand out ports of its own accord (ip_local_port_range).
_FIRST_PORT, _PORTS = 12000, 20000
_RESTARTS = 16  # neighbouring jobs on a node stay apart, and so do a job's attempts
_BRACKET = re.compile(r"\[([^\]]*)\]")


def rank_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT for a process that srun has started.

    Empty where srun has not started several tasks, or something else has given a rank. What stands in ``environ``
    already is kept: a batch script may choose the port. Raises LaunchError if Slurm's variables are not there.
    """
    if "RANK" in environ or int(environ.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return {}
    try:
        found = {
            "RANK": environ["SLURM_PROCID"],
            "LOCAL_RANK": environ["SLURM_LOCALID"],
            "WORLD_SIZE": environ["SLURM_STEP_NUM_TASKS"],
            "MASTER_ADDR": environ.get("MASTER_ADDR") or first_host(environ["SLURM_STEP_NODELIST"]),
            "MASTER_PORT": environ.get("MASTER_PORT") or str(rendezvous_port(environ)),
        }
    except KeyError as missing:
        raise LaunchError(
            f"srun started {environ['SLURM_STEP_NUM_TASKS']} tasks, but {missing.args[0]} is not set",
            remedy="let the container keep the variables SLURM_*, or set RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR "
            "and MASTER_PORT",
        ) from None
    return found


def first_host(nodes: str) -> str:
    """The first name of Slurm's notation for nodes: ``gpu[003-007,9],login`` → ``gpu003``."""
    return node_names(nodes)[0]


def node_names(nodes: str) -> list[str]:
    """Every name of Slurm's notation for nodes, in order; numbers keep their leading zeros."""
    parts = re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return [name for part in parts for name in _expanded(part)]


def _expanded(part: str) -> list[str]:
    match = _BRACKET.search(part)
    if match is None:
        return [part]
    before, after = part[: match.start()], _expanded(part[match.end() :])
    return [f"{before}{number}{rest}" for number in _numbers(match[1]) for rest in after]


def _numbers(ranges: str) -> list[str]:
    """``003-005,9`` → 003, 004, 005, 9."""
    found = []
    for item in ranges.split(","):
        first, _, last = item.partition("-")
        found += [str(number).zfill(len(first)) for number in range(int(first), int(last or first) + 1)]
    return found


def rendezvous_port(environ: Mapping[str, str]) -> int:
    """The port of a job's present attempt; another attempt has another one, so that nobody meets a dying process."""
    job, restart = int(environ["SLURM_JOB_ID"]), int(environ.get("SLURM_RESTART_COUNT", "0"))
    return _FIRST_PORT + (job * _RESTARTS + restart % _RESTARTS) % _PORTS
