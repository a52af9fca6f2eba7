"""Settings of podman and buildah for machines on which their defaults do not start: no systemd, few capabilities.

On an ordinary machine nothing is set and nothing is written. A CONTAINERS_CONF of the user's wins.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_CAP_SYS_RESOURCE = 24  # linux/capability.h
_MOST_FILES = 2**20


@dataclass(frozen=True)
class Machine:
    """What decides which settings are needed. ``files`` and ``processes`` are hard limits, -1: none."""

    root: bool
    systemd: bool
    may_raise_limits: bool
    files: int
    processes: int
    most_processes: int
    runc: str | None


def this_machine() -> Machine:
    """Read from /proc."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    return Machine(
        root=os.geteuid() == 0,
        systemd=Path("/run/systemd/system").is_dir(),
        may_raise_limits=bool(effective >> _CAP_SYS_RESOURCE & 1),
        files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        processes=resource.getrlimit(resource.RLIMIT_NPROC)[1],
        most_processes=int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii")),
        runc=shutil.which("runc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"),
    )


def needed(machine: Machine) -> bool:
    """Root in a machine that is itself a guest: podman can neither ask systemd for a cgroup nor raise a limit."""
    return machine.root and not (machine.systemd and machine.may_raise_limits)


def containers_conf(machine: Machine) -> str:
    """containers.conf(5). The network is the machine's own: there is nobody to set up another one."""
    files = _MOST_FILES if machine.files < 0 else machine.files
    processes = machine.most_processes if machine.processes < 0 else min(machine.processes, machine.most_processes)
    lines = ["[containers]"]
    if not machine.may_raise_limits:
        lines.append(f'default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]')
    lines += ['netns = "host"', "[engine]", 'events_logger = "file"']
    if not machine.systemd:
        lines.append('cgroup_manager = "cgroupfs"')
    if machine.runc:  # crun refuses cgroups of both versions side by side
        lines += ['runtime = "runc"', "[engine.runtimes]", f'runc = ["{machine.runc}"]']
    return "\n".join([*lines, ""])


def storage_conf(state: Path) -> str:
    """storage.conf(5): images and containers lie in ``state``. The driver vfs is ten times slower than overlay."""
    return f'[storage]\ndriver = "overlay"\ngraphroot = "{state}/storage"\nrunroot = "{state}/run"\n'


def podman_environment(state: Path, machine: Machine, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables for podman and buildah, with their files written into ``state``; empty where nothing is needed."""
    if not needed(machine) or "CONTAINERS_CONF" in environ:
        return {}
    state.mkdir(parents=True, exist_ok=True)
    files = {"CONTAINERS_CONF": "containers.conf", "CONTAINERS_STORAGE_CONF": "storage.conf"}
    for name, text in (("containers.conf", containers_conf(machine)), ("storage.conf", storage_conf(state))):
        if not (state / name).is_file() or (state / name).read_text(encoding="utf-8") != text:
            (state / name).write_text(text, encoding="utf-8")
    return {variable: str(state / name) for variable, name in files.items()}
