"""Fixtures of the whole suite: a real S3 server and a real Slurm, each started once for the session."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.scripts import ROOT, load_script

# How long an example takes depends on what else the machine does: no test is about that.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

SLURM_PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Where LMBATCH_NO_SKIPS is set (continuous integration), a skipped test is a failure."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and os.environ.get("LMBATCH_NO_SKIPS"):
        terminalreporter.write_line(f"{len(skipped)} tests were skipped, which counts as a failure here", red=True)
        for report in skipped:
            terminalreporter.write_line(f"  {report.nodeid}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("LMBATCH_NO_SKIPS") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "s3_server" in getattr(item, "fixturenames", ()):
            item.add_marker("s3")
        if "slurm_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker("slurm")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """The S3Server of cluster/s3_server.py; ``settings.environment`` and ``settings.uri`` say how to reach it."""
    server = load_script(ROOT / "cluster" / "s3_server.py").S3Server(tmp_path_factory.mktemp("s3-server"))
    server.start()
    yield server
    server.kill()  # its data is of no use to anyone, so there is no point in waiting for it
    server.stop(wipe=True)


@pytest.fixture
def s3_uri(s3_server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A fresh prefix in the server's bucket; the environment names the server, and nothing of this user's."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "no-such-file"))
    for name, value in s3_server.settings.environment.items():
        monkeypatch.setenv(name, value)
    return f"{s3_server.settings.uri}/{secrets.token_hex(6)}"


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator:
    """A cluster of two nodes with two cores each; on a machine without Slurm its tests say what is missing."""
    from support.slurm_site import ARRAY, NODES, SlurmCluster

    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [program for program in SLURM_PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        pytest.skip(f"this machine has no {', '.join(missing)}: run cluster/install.sh as root")
    folder = Path(tempfile.mkdtemp(prefix="lmbatch-slurm-", dir="/tmp"))  # Unix sockets want a short path
    cluster = SlurmCluster(folder)
    cluster.up(nodes=NODES, cpus=2, max_array_size=ARRAY)
    yield cluster
    cluster.down(wipe=True)
