"""One test's place on the virtual Slurm: its site file, the commands that it runs, and what it waits for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lmbatch.config import PreprocessConfig
from lmbatch.store import open_store
from support.drive import HELD, contents, preprocess_here
from support.wudao import config_for, write_files, write_tokenizer

TESTS = Path(__file__).resolve().parents[1]
NODES = 2
ARRAY = 4  # so small that a run must use several arrays

sys.path.insert(0, str(TESTS.parent / "cluster"))
from slurm_cluster import SlurmCluster  # noqa: E402  (a script beside the source, not a package)


def config_of(corpus: Path, base: Path, store: str) -> PreprocessConfig:
    """The config of a run with its places under ``base``."""
    raw = {"raw": str(corpus / "raw")}
    return config_for(base, corpus=raw, tokenizer={"path": str(corpus / "tok")}, tasks={"bytes": 4000},
                      store=store if "://" in store else str(base / store))  # fmt: skip


def write_corpus_and_quiet_store(base: Path) -> Path:
    """Raw files, a tokenizer, and the store ``quiet`` that an undisturbed process made of them; the folder."""
    write_files(base / "raw", files=2, documents=60)
    write_tokenizer(base / "tok")
    preprocess_here(config_of(base, base, "quiet"))
    return base


def wait_until(condition: Callable[[], bool], seconds: float = 120, what: str = "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain {what}"
        time.sleep(0.05)


@dataclass
class Site:
    """One test's folder, its site file (with its section ``container``, if any) and the commands that it runs."""

    cluster: SlurmCluster
    corpus: Path
    base: Path
    container: dict[str, Any] | None = None
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def gate(self) -> Path:
        return self.base / "gate"

    @property
    def jobs(self) -> Path:
        return self.base / "jobs"

    def command(self, *more: str, store: str = "store", held: bool = False, **slurm: Any) -> list[str]:
        """The command that preprocesses on Slurm; ``held`` makes tasks wait for the gate, ``slurm`` is of the site."""
        config = config_of(self.corpus, self.base, store).model_dump(mode="json")
        (self.base / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
        hold = (
            [f"export PYTHONPATH={HELD}${{PYTHONPATH:+:$PYTHONPATH}}", f"export LMBATCH_TEST_GATE={self.gate}"]
            if held
            else []
        )
        asked = {"max_parallel": 4, "memory": "500MiB", "minutes": 15, "poll_seconds": 0.5, "batch_bytes": 9000}
        site = {"name": "test", "executor": "slurm", "slurm": {**asked, "setup": hold, **slurm}}
        if self.container is not None:
            site["container"] = self.container
        (self.base / "site.yaml").write_text(yaml.safe_dump(site), encoding="utf-8")
        return [sys.executable, "-m", "lmbatch", "preprocess", "--config", str(self.base / "config.yaml"),
                "--site", str(self.base / "site.yaml"), *more]  # fmt: skip

    def start(self, *more: str, **settings: Any) -> subprocess.Popen[str]:
        """Start the driver."""
        process = subprocess.Popen(
            self.command(*more, **settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.base,
            env={**os.environ, **self.cluster.environment}, start_new_session=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def run(self, *more: str, **settings: Any) -> str:
        """Run the driver to its good end; what it said on stderr."""
        return self.finish(self.start(*more, **settings))

    @staticmethod
    def finish(process: subprocess.Popen[str]) -> str:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        return errors

    def waiting(self) -> list[str]:
        """Nodes of the tasks that wait at the gate."""
        return [path.name.split("-")[1] for path in self.base.glob("waiting-*")]

    def queue(self) -> list[str]:
        """States of what is queued."""
        return self.cluster.run("squeue", "-h", "-r", "-o", "%T").stdout.split()

    def assert_same_bytes(self, store: str = "store") -> None:
        """The store holds what an undisturbed process made."""
        target = store if "://" in store else str(self.base / store)
        assert contents(open_store(target)) == contents(open_store(str(self.corpus / "quiet")))


def used_site(site: Site) -> Iterator[Site]:
    """For a fixture: the site, and afterwards none of its drivers, and an empty queue."""
    yield site
    for process in site.started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    site.cluster.run("scancel", "--quiet", f"--user={os.getuid()}")
    wait_until(lambda: not site.queue(), what="for an empty queue")
