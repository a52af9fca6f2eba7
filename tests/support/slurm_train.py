"""Training jobs on the virtual Slurm: the repository's own batch script with a tiny config, and what became of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lmbatch.report import compare_runs, run_status
from lmbatch.report.status import RunStatus
from support.slurm_site import SlurmCluster, wait_until
from support.tiny_run import tiny_settings, write_config

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "slurm" / "train_gpt2_zh.sbatch"
HELD = ROOT / "tests" / "cluster" / "held_training"
STEPS = 20
# Dropout is drawn on each process, so it differs by the world size.
DETERMINED = tuple(f"model.config.{kind}_pdrop=0" for kind in ("resid", "embd", "attn"))


@dataclass
class TrainingJob:
    """One job of two processes on two nodes. ``hold`` are the places where its attempts wait for notice."""

    cluster: SlurmCluster
    base: Path
    store: str
    name: str
    id: str = ""
    container: dict[str, Any] | None = None  # of the site file; None: on the nodes themselves
    more_environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        return self.base / "runs" / self.name

    @property
    def marks(self) -> Path:
        return self.base / f"marks-{self.name}"

    def environment(self, hold: str = "") -> dict[str, str]:
        self.marks.mkdir(exist_ok=True)
        path = os.pathsep.join(filter(None, (str(HELD), os.environ.get("PYTHONPATH"))))
        found = {
            **os.environ, **self.cluster.environment, "LMBATCH_TEST_HOLD": hold, "LMBATCH_TEST_MARKS": str(self.marks),
            "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "LMBATCH_PREFLIGHT": "no",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            **({"LMBATCH_SITE": str(self.site)} if self.container else {}), **self.more_environment,
        }  # fmt: skip
        return {key: value for key, value in found.items() if not key.startswith("SLURM_") or key == "SLURM_CONF"}

    def config(self, **changes: Any) -> Path:
        settings = tiny_settings(self.store, self.base / "runs", run={"name": self.name}, steps=STEPS, **changes)
        return write_config(self.base / f"{self.name}.yaml", settings)

    def submit(
        self, *options: str, hold: str = "", nodes: int = 2, sets: tuple[str, ...] = (), preflight: bool = False
    ) -> TrainingJob:
        """sbatch of the repository's script, with the config's path put in place of its own."""
        script = SCRIPT.read_text(encoding="utf-8")
        line = "config=configs/train/gpt2_zh.yaml"
        assert line in script
        own = self.base / f"{self.name}.sbatch"
        own.write_text(script.replace(line, f"config={self.config()}"), encoding="utf-8")
        more = [part for item in sets for part in ("--set", item)]
        done = subprocess.run(
            ["sbatch", "--parsable", f"--nodes={nodes}", "--time=30", f"--chdir={self.base}", f"--output={self.log}",
             *options, str(own), *more],
            capture_output=True, text=True, check=False,
            env={**self.environment(hold), "LMBATCH_PREFLIGHT": "yes" if preflight else "no"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.id = done.stdout.strip()
        return self

    @property
    def site(self) -> Path:
        site: dict[str, Any] = {"name": "test", "executor": "slurm", "train": {"nodes": 2, "minutes": 30}}
        if self.container:
            kept = ["PYTHONPATH", "LMBATCH_TEST_HOLD", "LMBATCH_TEST_MARKS"]
            site["container"] = {**self.container, "environment": kept}
        path = self.base / f"{self.name}-site.yaml"
        path.write_text(yaml.safe_dump(site), encoding="utf-8")
        return path

    def begin(self, *command: str, hold: str = "") -> subprocess.Popen[str]:
        """Start one of lmbatch's commands; both of its streams come as one text."""
        return subprocess.Popen(
            [sys.executable, "-m", "lmbatch", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=self.environment(hold), cwd=self.base,
        )  # fmt: skip

    def lmbatch(self, *command: str, hold: str = "") -> str:
        """Run one of lmbatch's commands; what it said."""
        return self.begin(*command, hold=hold).communicate(timeout=120)[0]

    def launch(self, hold: str = "") -> TrainingJob:
        """`lmbatch launch train`, as a user does it."""
        command = ("launch", "train", "--config", str(self.config()), "--on", str(self.site), "--json")
        self.id = json.loads(self.lmbatch(*command, hold=hold))["job"]
        return self

    def train_here(self, *sets: str) -> TrainingJob:
        """The same config on one process of this machine, without Slurm."""
        more = [part for item in sets for part in ("--set", item)]
        command = [sys.executable, "-m", "lmbatch.train", "--config", str(self.config()), *more]
        environ = {key: value for key, value in self.environment().items() if not key.startswith("SLURM_")}
        subprocess.run(command, check=True, capture_output=True, env=environ, cwd=self.base)
        return self

    def interactive(self, *options: str, hold: str) -> subprocess.Popen[bytes]:
        """srun from a terminal; what it says goes to the log."""
        train = (sys.executable, "-m", "lmbatch.train", "--config", str(self.config()))
        with self.log.open("ab") as log:
            return subprocess.Popen(
                ["srun", "--nodes=2", "--time=30", *options, *train], stdout=log, stderr=log, cwd=self.base,
                env={**self.environment(hold), "ACCELERATE_USE_CPU": "true"}, start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> Path:
        return self.base / f"{self.name}.log"

    def notice(self) -> None:
        """What Slurm gives to the batch shell at a preemption or before the time limit."""
        self.cluster.run("scancel", "--signal=USR2", "--batch", self.id)

    def notice_to_rank(self, attempt: int, place: str, rank: int) -> None:
        """Notice to one held process alone, and then the others may go on."""
        pid = (self.marks / f"{attempt}-{place}-rank{rank}").read_text(encoding="utf-8")
        node = self.cluster.settings.names[rank]
        where = ("srun", f"--jobid={self.id}", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={node}")
        done = self.cluster.run(*where, "kill", "-USR2", pid)
        assert done.returncode == 0, done.stderr
        self.go_on(attempt)

    def go_on(self, attempt: int) -> None:
        """Let those that are held go on without notice."""
        (self.marks / f"go-{attempt}").touch()

    def preempt(self) -> None:
        """A job of higher priority wants both nodes for a moment."""
        command = ("sbatch", "-p", "urgent", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")
        assert self.cluster.run(*command).returncode == 0

    def wait_held(self, attempt: int, place: str, processes: int = 2) -> None:
        """Held after a step, with the newest checkpoint that is due by then committed: it is written behind the steps.

        That one, or one after it: retention may have deleted it since.
        """
        wait_until(
            lambda: len(list(self.marks.glob(f"{attempt}-{place}-rank*"))) == processes,
            what=f"for attempt {attempt} to be held at {place}; {self.text()[-2000:]}",
        )
        due = int(place.removeprefix("step-")) // 5 * 5 if place.startswith("step-") else 0
        wait_until(lambda: self.committed() >= due, what=f"for the checkpoint of step {due}")

    def committed(self) -> int:
        """The newest step that has a receipt; 0 without one."""
        found = (path.parent.name for path in self.run.glob("checkpoints/step-*/receipt.json"))
        return max((int(name.removeprefix("step-")) for name in found), default=0)

    def state(self) -> str:
        """Empty once the controller has forgotten the job; a question that it had no time for says nothing."""
        done = self.cluster.run("squeue", "-h", "-o", "%T", "-j", self.id)
        known = done.returncode == 0 or "Invalid job id" in done.stderr
        return done.stdout.strip() if known else "UNKNOWN"

    def wait_over(self, seconds: float = 180) -> None:
        wait_until(lambda: self.state() in ("", "COMPLETED", "FAILED", "CANCELLED"), seconds, self.text()[-2000:])

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def status(self) -> RunStatus:
        return run_status(self.run)

    def assert_like(self, other: TrainingJob) -> None:
        """The same curve over the same samples, bit for bit."""
        found = compare_runs(other.run, self.run)
        assert found.equal, f"{found}\n{self.text()[-4000:]}"

    def assert_close_to(self, other: TrainingJob, tolerance: float) -> None:
        """The same samples, and losses that differ by no more than ``tolerance`` nats."""
        found = compare_runs(other.run, self.run)
        assert found.same_samples, found
        assert found.steps_compared == found.steps_first == found.steps_second
        assert found.largest_loss_difference <= tolerance, found


NewJob = Callable[[str], TrainingJob]
