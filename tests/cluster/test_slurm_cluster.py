"""The script that brings the cluster up: several side by side, nothing left behind, and what it says when it cannot."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from support.slurm_site import TESTS, SlurmCluster

SCRIPT = TESTS.parent / "cluster" / "slurm_cluster.py"


def script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, **environment},
    )  # fmt: skip


def processes_of(state: Path) -> list[str]:
    """Commands of live processes that know the folder, by arguments or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            known = [*process.cmdline(), process.environ().get("SLURM_CONF", "")]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(state) in word for word in known):
                found.append(process.name())
        except psutil.Error:
            continue
    return found


def test_a_second_cluster_beside_the_first_and_nothing_left_of_it(slurm_cluster: SlurmCluster) -> None:
    state = Path(tempfile.mkdtemp(prefix="lmbatch-slurm-", dir="/tmp"))
    place = ("--state", str(state))
    first = script("up", *place, "--nodes", "1")
    assert first.returncode == 0, first.stderr
    assert script("up", *place).returncode == 0  # runs already
    mine = script("exec", *place, "srun", "hostname").stdout
    assert mine.strip() in SlurmCluster(state).settings.names
    assert slurm_cluster.run("srun", "hostname").stdout.strip() in slurm_cluster.settings.names
    assert script("status", *place).returncode == 0
    assert {"slurmctld", "slurmdbd", "mariadbd", "munged", "slurmd"} <= set(processes_of(state))
    assert script("down", *place, "--wipe").returncode == 0
    assert processes_of(state) == []
    assert not state.exists()


def test_an_ordinary_user_brings_one_up_and_down() -> None:
    home = Path(tempfile.mkdtemp(prefix="lmbatch-user-", dir="/tmp"))
    for path in SCRIPT.parent.glob("*.py"):  # the user may not be able to read the folder of the project
        shutil.copy(path, home)
    become: tuple[str, ...] = ()
    if os.geteuid() == 0:
        become = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
        for path in (home, *home.iterdir()):
            shutil.chown(path, "nobody", "nogroup")

    def as_user(verb: str, *more: str) -> subprocess.CompletedProcess[str]:
        command = (*become, "/usr/bin/python3", str(home / SCRIPT.name), verb, "--state", str(home / "s"), *more)
        environ = {**os.environ, "HOME": str(home), "TMPDIR": str(home), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environ)

    up = as_user("up", "--nodes", "2")
    try:
        assert up.returncode == 0, up.stderr
        said = as_user("exec", "srun", "-N2", "id", "-un").stdout.split()
        assert said == [pwd.getpwuid(home.stat().st_uid).pw_name] * 2
    finally:
        down = as_user("down", "--wipe")
    assert down.returncode == 0, down.stderr
    assert processes_of(home / "s") == []
    shutil.rmtree(home)


def test_a_missing_program_is_named_with_its_package(tmp_path: Path) -> None:
    cluster = SlurmCluster(tmp_path / "s")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slurm_cluster.PROGRAMS", {"no-such-program": "its-package"})
        with pytest.raises(Exception, match=r"not installed: no-such-program.*cluster/install\.sh.*its-package"):
            cluster.up()
    assert not (tmp_path / "s").exists()


def test_a_folder_whose_sockets_would_have_too_long_names_is_refused(tmp_path: Path) -> None:
    done = script("up", "--state", str(tmp_path / ("x" * 80)))
    assert done.returncode == 1
    assert "shorter --state" in done.stderr


@pytest.mark.parametrize("verb", [("status",), ("exec", "true"), ("kill-node", "1")])
def test_a_cluster_that_was_never_started_is_said_so(tmp_path: Path, verb: tuple[str, ...]) -> None:
    done = script(verb[0], "--state", str(tmp_path), *verb[1:])
    assert done.returncode == 1
    assert "use `up` first" in done.stderr
