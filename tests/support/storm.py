"""A storm of kill -9 over `lmbatch preprocess`: seeded, real processes, a new driver whenever one is killed."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

STRUCK = Path(__file__).resolve().parents[1] / "fault" / "struck"  # the folder that draws the lots
LONGEST = 240.0  # seconds; a storm that lasts longer has hung


@dataclass
class Storm:
    """``command`` is run until ``kills`` processes have fallen, and once more when all is calm."""

    folder: Path
    seed: int
    command: list[str]
    drivers: int = 0
    moments: int = 0  # processes that were killed at a moment of their own
    _doomed: dict[psutil.Process, float] = field(default_factory=dict)

    @property
    def fallen(self) -> int:
        """Processes that were killed, at boundaries and at moments."""
        return self.moments + len(self.boundaries())

    @property
    def _log(self) -> Path:
        return self.folder / "driver.log"

    def boundaries(self) -> list[str]:
        """The writes at which processes were killed."""
        return [path.read_text() for path in self.folder.glob("fell-*")]

    def rage(self, kills: int) -> None:
        """Strike until so many have fallen. Raises AssertionError if a driver ends by itself before that."""
        deadline = time.monotonic() + LONGEST
        while self.fallen < kills:
            with self._start() as driver:
                while driver.poll() is None and self.fallen < kills:
                    assert time.monotonic() < deadline, f"{self}: {self.fallen} of {kills} have fallen"
                    self._strike()
                    time.sleep(0.01)
                if self.fallen >= kills:
                    (self.folder / "calm").touch()
                    driver.kill()
            said = self._log.read_text()[-2000:]
            assert driver.returncode == -9, f"{self}: the driver ended with {driver.returncode}\n{said}"

    def wait_for_orphans(self) -> None:
        """Until none is left of the workers that a killed driver has left."""
        mark, deadline = str(self.folder), time.monotonic() + LONGEST
        while any(_environment(process).get("LMBATCH_TEST_STORM") == mark for process in psutil.process_iter()):
            assert time.monotonic() < deadline, f"{self}: workers do not end"
            time.sleep(0.1)

    def _start(self) -> subprocess.Popen[bytes]:
        self.drivers += 1
        paths = os.pathsep.join(path for path in (str(STRUCK), os.environ.get("PYTHONPATH")) if path)
        storm = {"LMBATCH_TEST_STORM": str(self.folder), "LMBATCH_TEST_SEED": str(self.seed), "PYTHONPATH": paths}
        with self._log.open("w") as log:  # a pipe would be held open by what a killed driver leaves
            return subprocess.Popen(self.command, cwd=self.folder, stderr=log, stdout=log, env={**os.environ, **storm})

    def _strike(self) -> None:
        now = time.monotonic()
        for path in self.folder.glob("doomed-*"):
            seconds = float(path.read_text())
            path.unlink()
            try:
                self._doomed[psutil.Process(int(path.name.partition("-")[2]))] = now + seconds
            except psutil.NoSuchProcess:
                continue
        for process in [process for process, at in self._doomed.items() if at <= now]:
            del self._doomed[process]
            try:
                if process.status() != psutil.STATUS_ZOMBIE:
                    process.kill()
                    self.moments += 1
            except psutil.NoSuchProcess:
                continue


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}
