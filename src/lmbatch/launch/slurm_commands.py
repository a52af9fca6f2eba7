"""Slurm's commands, and what their answers mean. The formats are those of squeue(1), sacct(1) and scontrol(1)."""

from __future__ import annotations

import getpass
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmbatch.errors import SchedulerError

_SECONDS = 60.0
_OVER = frozenset({"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
                   "PREEMPTED", "REVOKED", "TIMEOUT"})  # fmt: skip
_FATAL_SIGNALS = frozenset({signal.SIGABRT, signal.SIGBUS, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM})
_QUEUE = "--format=%i|%T|%r|%k"
_JOBS = "--format=%i|%T|%r|%L|%N|%k"
_REMEDY = "run it on a login node of a Slurm cluster; on one machine use --on local, or `make cluster-up`"


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One element of an array (or a lone job) that waits or runs."""

    id: str  # "ARRAY_INDEX", or the job's number alone
    state: str
    reason: str
    comment: str

    @property
    def array(self) -> str:
        """The number that the whole array goes by."""
        return self.id.partition("_")[0]

    @property
    def index(self) -> int:
        """Place in the array; a lone job is the first of itself."""
        return int(self.id.partition("_")[2] or 0)


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job that is no array, waiting or running. ``left`` and ``reason`` are Slurm's own words."""

    id: str
    state: str
    reason: str
    left: str
    nodes: str
    comment: str


@dataclass(frozen=True, slots=True)
class Ending:
    """What accounting knows of an element."""

    state: str
    exit_code: int
    signal: int
    nodes: str

    @property
    def over(self) -> bool:
        """False while accounting lags behind, or the element was requeued."""
        return self.state in _OVER

    def __str__(self) -> str:
        # srun gives the number of the signal that ended its task as its own exit code.
        number = self.signal or (self.exit_code if self.exit_code in _FATAL_SIGNALS else 0)
        how = f"killed by signal {number}" if number else f"exit code {self.exit_code}"
        return f"{self.state} ({how}) on {self.nodes}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the cluster allows: elements of one array, and jobs in the queue at a time."""

    array: int
    jobs: int


class SlurmCommands:
    """One method for each thing that is asked of Slurm. All raise SchedulerError."""

    def limits(self) -> Limits:
        """MaxArraySize and MaxJobCount of the cluster, and the user's own limit where accounting knows one."""
        found = parse_limits(_run("scontrol", "show", "config"))
        try:
            own = _run("sacctmgr", "-n", "-P", "show", "assoc", f"user={getpass.getuser()}", "format=MaxSubmitJobs")
        except SchedulerError:  # a cluster without accounting
            return found
        numbers = [int(word) for word in own.split() if word.isdigit()]
        return Limits(found.array, min([found.jobs, *numbers]))

    def queue(self, name: str) -> list[QueueRow]:
        """Every element of this name of this user that has not ended; one call for all."""
        return parse_queue(_run("squeue", "--noheader", "--array", f"--user={_user()}", f"--name={name}", _QUEUE))

    def jobs(self) -> list[JobRow]:
        """Every job of this user that has not ended."""
        return parse_jobs(_run("squeue", "--noheader", f"--user={_user()}", _JOBS))

    def submit(self, script: Path, arguments: Sequence[str]) -> str:
        """The number of the new job, which runs the script with these arguments."""
        return _run("sbatch", "--parsable", str(script), *arguments).partition(";")[0].strip()

    def log_path(self, job: str) -> Path | None:
        """Where a job's standard output goes, while the controller remembers the job."""
        match = re.search(r"^\s*StdOut=(.+)$", _run("scontrol", "show", "job", job), re.MULTILINE)
        return Path(match[1].strip()) if match else None

    def endings(self, ids: Sequence[str]) -> dict[str, Ending]:
        """How elements ended, by id; those that accounting does not know (yet) are missing."""
        if not ids:
            return {}
        arrays = sorted({element.partition("_")[0] for element in ids})
        fields = "--format=JobID,State,ExitCode,NodeList"
        found = parse_endings(
            _run("sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={','.join(arrays)}", fields)
        )
        return pick_endings(found, ids)

    def history(self, job: str) -> list[Ending]:
        """How each attempt at a lone job ended, the first one first; [] where accounting knows nothing of it."""
        fields = "--format=JobID,State,ExitCode,NodeList"
        return parse_history(
            _run("sacct", "--noheader", "--allocations", "--duplicates", "--parsable2", f"--jobs={job}", fields)
        )

    def set_throttle(self, array: str, elements: int) -> None:
        """Let so many elements of an array run at a time."""
        _run("scontrol", "update", f"JobId={array}", f"ArrayTaskThrottle={elements}")

    def cancel(self, name: str) -> None:
        """Cancel everything of this name of this user."""
        _run("scancel", "--quiet", f"--user={_user()}", f"--name={name}")

    def cancel_element(self, element: str) -> None:
        """Cancel one element."""
        _run("scancel", "--quiet", element)


def parse_queue(text: str) -> list[QueueRow]:
    """Lines ``id|state|reason|comment``; a comment may hold anything."""
    rows = [line.split("|", 3) for line in text.splitlines() if line.count("|") >= 3]
    return [QueueRow(element.strip(), state, reason, comment.strip()) for element, state, reason, comment in rows]


def parse_jobs(text: str) -> list[JobRow]:
    """Lines ``id|state|reason|time left|nodes|comment``; a comment may hold anything."""
    rows = [line.split("|", 5) for line in text.splitlines() if line.count("|") >= 5]
    return [JobRow(*(part.strip() for part in row)) for row in rows]


def parse_endings(text: str) -> dict[str, Ending]:
    """Lines ``id|state|code:signal|nodes``; the state may go on, as in ``CANCELLED by 1000``.

    Elements that never started share a line: its id is then ``17_[2-5,7%2]``.
    """
    found: dict[str, Ending] = {}
    for line in text.splitlines():
        ids, state, code, nodes = line.split("|")
        exit_code, _, number = code.partition(":")
        ending = Ending(state.split()[0], int(exit_code or 0), int(number or 0), nodes)
        found |= dict.fromkeys(expand_ids(ids), ending)
    return found


def parse_history(text: str) -> list[Ending]:
    """The same lines, one for each attempt at one job."""
    return [ending for line in text.splitlines() for ending in parse_endings(line).values()]


def pick_endings(found: dict[str, Ending], ids: Sequence[str]) -> dict[str, Ending]:
    """Those of ``ids``. Elements that were cancelled before they started may have no record but the whole array's."""
    picked = {}
    for element in ids:
        whole = found.get(element.partition("_")[0])
        ending = found.get(element) or (whole if whole and whole.state == "CANCELLED" else None)
        if ending is not None:
            picked[element] = ending
    return picked


def expand_ids(ids: str) -> list[str]:
    """``17_[2-4,7%2]`` → ``17_2, 17_3, 17_4, 17_7``; any other id stands for itself."""
    match = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", ids)
    if match is None:
        return [ids]
    ranges = [part.partition("-") for part in match[2].split(",")]
    numbers = [number for first, _, last in ranges for number in range(int(first), int(last or first) + 1)]
    return [f"{match[1]}_{number}" for number in numbers]


def parse_limits(text: str) -> Limits:
    """Of ``scontrol show config``. The greatest index is one less than MaxArraySize, and the first one is 0."""
    return Limits(array=_number(text, "MaxArraySize"), jobs=_number(text, "MaxJobCount"))


def _number(text: str, key: str) -> int:
    match = re.search(rf"^{key}\s*=\s*(\d+)", text, re.MULTILINE)
    if match is None:
        raise SchedulerError(f"`scontrol show config` does not name {key}", remedy="look at its output")
    return int(match[1])


def _user() -> str:
    return str(os.getuid())


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except FileNotFoundError:
        raise SchedulerError(f"the program `{command[0]}` of Slurm is not installed here", remedy=_REMEDY) from None
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"`{command[0]}` gave no answer in {_SECONDS:.0f} s", remedy="try again later") from None
    if done.returncode:
        raise SchedulerError(f"`{' '.join(command[:3])}` failed: {done.stderr.strip()}", remedy=_REMEDY)
    return done.stdout
