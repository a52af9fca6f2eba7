"""Training for a month on nodes that fail and jobs that are preempted: the real checkpoints, ledger and batch script.

::

    queue ─▶ pre-flight verdict ─▶ resume (real walk-back) ─▶ steps, saves that are due ─▶ an end ─▶ the real script:
      ▲                                                                                     requeue, new job, or stay
      └─────────────────────────────────────────────────────────────────────────────────────────────┘

A checkpoint is a few bytes here, but it is committed, mirrored, pruned, verified and walked back over as any other.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lmbatch import __version__
from lmbatch.checkpoint import CheckpointFacts, Checkpoints
from lmbatch.config import TrainConfig, TrainSite
from lmbatch.errors import EXIT_FAILED, EXIT_REQUEUE, NoProgressError, UsageError
from lmbatch.simulate.machines import Chance, Nodes
from lmbatch.simulate.script import BatchScript
from lmbatch.simulate.store import SimulatedStore
from lmbatch.store import Traffic, open_store
from lmbatch.store.s3 import parts_of
from lmbatch.train.attempts import AttemptLog, check_progress, read_attempts
from lmbatch.train.due import due
from lmbatch.train.preflight import NodeReport, judge, to_avoid

_DAY = 86_400.0
_BEGAN = datetime(2000, 1, 1, tzinfo=UTC)
_KILLED = 143  # exit code of a shell whose command was killed by SIGTERM
_NEVER = 10**12  # steps of a run that ends with the simulation


@dataclass(frozen=True, slots=True)
class TrainCase:
    """What is simulated. Times in seconds unless named otherwise.

    ``stall``: what training waits for a save; ``write``: from then to its commit; ``startup``: from a job's start to
    its first step, the resume included; ``queue``: how long a job waits for its nodes. ``damage`` is the share of
    checkpoints of which a byte goes bad, ``bad_node`` that of starts with a node that fails the pre-flight check.
    ``by_hand`` is how long it takes somebody to submit a job again that has stayed ended.
    """

    nodes: Nodes
    days: float = 30.0
    steps: int | None = None  # of the whole run; None: it goes on for ``days``
    step: float = 1.0
    stall: float = 0.5
    write: float = 20.0
    startup: float = 90.0
    queue: float = 120.0
    checkpoint_bytes: int = 2**30
    hours_between_preemptions: float = math.inf  # of the job
    hours_between_hangs: float = math.inf
    damage: float = 0.0
    bad_node: float = 0.0
    preflight: float = 30.0
    by_hand: float = 4 * 3600.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.step <= 0 or self.days <= 0 or self.checkpoint_bytes < 1:
            raise UsageError("a simulation needs steps that take time, a time to run for, and checkpoints of some size")


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """What came of it; times in seconds. ``goodput`` is the share of all time that went into steps which count.

    ``steps_lost`` is what the run's own ledger says. ``spent`` tells where the rest of the time went; ``ends`` how
    attempts ended.
    """

    seconds: float
    steps: int
    steps_lost: int
    goodput: float
    attempts: int
    ends: dict[str, int]
    spent: dict[str, float]
    saves: int
    left_out: int  # saves that were due while the one before was on its way (save.when_busy: skip)
    passed_over: int  # checkpoints that were refused on resume
    kept: tuple[int, ...]
    uploaded: Traffic
    gave_up: int  # times that the job stayed ended

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self) | {"uploaded": self.uploaded.model_dump()}


def simulate_training(
    config: TrainConfig, site: TrainSite, case: TrainCase, on_progress: Callable[[float, float], None] = lambda *_: None
) -> TrainOutcome:
    """Train with the settings for saving of ``config`` and the limits of ``site``, to the end or for ``case.days``.

    ``on_progress`` is told the seconds simulated, and of how many. The same seed gives the same outcome.
    """
    memory = Path("/dev/shm")  # noqa: S108  (thousands of commits, each of which is forced to the disk)
    with tempfile.TemporaryDirectory(prefix="lmbatch-simulation-", dir=memory if memory.is_dir() else None) as folder:
        return Month(config, site, case, Path(folder), on_progress).run()


@dataclass(slots=True)
class _End:
    """How an attempt ended: its exit code, and whether notice came first. ``closed``: it has told its ledger;
    ``by_slurm``: the batch shell died with it, so that Slurm alone can requeue the job."""

    why: str
    code: int
    notice: bool = False
    closed: bool = False
    by_slurm: bool = False


@dataclass(slots=True)
class _Pending:
    """A checkpoint on its way to its commit."""

    step: int
    at: float


@dataclass
class Month:
    """One run, from its first job to the end of the simulation."""

    config: TrainConfig
    site: TrainSite
    case: TrainCase
    folder: Path
    on_progress: Callable[[float, float], None]
    now: float = 0.0
    step: int = 0
    saved: int = 0  # the newest step that this attempt knows to be committed
    furthest: int = 0
    logged: int = 0  # the last step of which metrics.jsonl has a row
    saves: int = 0
    left_out: int = 0
    passed_over: int = 0
    gave_up: int = 0
    job: int = 1
    restarts: int = 0
    excluded: list[str] = field(default_factory=list)
    pending: _Pending | None = None
    ends: Counter[str] = field(default_factory=Counter)
    spent: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chance = Chance(self.case.seed)
        self.damage = Chance(self.case.seed + 1)  # drawn apart, so that it does not shift the failures
        self.script = BatchScript(self.site)
        self.end = self.case.days * _DAY
        self.total = self.case.steps or _NEVER
        self.mirror = SimulatedStore({}) if self.config.save.store else None
        save = self.config.save
        self.checkpoints = Checkpoints(
            open_store(str(self.folder)), keep=save.keep, keep_every=save.keep_every, mirror=self.mirror
        )

    def run(self) -> TrainOutcome:
        """Job after job."""
        while self.now < self.end and self.step < self.total:
            self._pass("waiting", self.chance.around(self.case.queue, 0.5))
            if self.now >= self.end or not self._preflight():
                continue
            end = self._attempt()
            self.ends[end.why] += 1
            if self.now < self.end and self.step < self.total:
                self._after(end)
            self.on_progress(min(self.now, self.end), self.end)
        return self._outcome()

    # ── one attempt ──────────────────────────────────────────────────────────────────────────────────────────────
    def _attempt(self) -> _End:
        ledger = AttemptLog(self.folder, self._clock)
        environ = {"SLURM_JOB_ID": str(self.job), "SLURM_RESTART_COUNT": str(self.restarts)}
        ledger.started(world_size=self._ranks(), code_version=__version__, config="simulated", environ=environ)
        self.step = self.saved = self._resume()
        ledger.resumed(self.step, last_logged=self.logged)
        try:
            check_progress(ledger.earlier, job_id=str(self.job), step=self.step, most=self.config.run.max_idle_attempts)
        except NoProgressError:
            ledger.ended("failed", detail="no progress", last_step=self.step, last_saved_step=self.step)
            return _End("no progress", EXIT_FAILED)
        self.logged = self.step
        end = self._train()
        if end.closed:
            why = "finished" if end.code == 0 else "stopped"
            ledger.ended(why, detail=end.why, last_step=self.step, last_saved_step=self.step)
        return end

    def _resume(self) -> int:
        found, refusals = self.checkpoints.newest_valid()
        self.passed_over += sum(refusal.kind != "torn" for refusal in refusals)
        self.checkpoints.retire(refusals)
        return found.step if found is not None else 0

    def _train(self) -> _End:
        """Steps until one of the things happens that end an attempt; they are drawn when it begins."""
        begin, case = self.now, self.case
        failure = begin + self.chance.wait(case.nodes.hours_between_failures / case.nodes.count)
        hang = begin + self.chance.wait(case.hours_between_hangs)
        limit = begin + self.site.minutes * 60 - self.site.notice_seconds
        preemption = begin + self.chance.wait(case.hours_between_preemptions)
        notice = min(limit, preemption)
        why = "time limit" if notice == limit else "preempted"
        self._pass("starting", case.startup, until=min(failure, self.end))
        while self.now < self.end and self.step < self.total:
            if failure <= self.now:
                return self._die(failure, _End("node failure", _KILLED, by_slurm=True))
            if hang <= self.now:
                self._pass("hanging", self.config.run.hang_seconds)
                return self._die(hang, _End("hang", EXIT_REQUEUE))  # as train/watchdog.py ends it
            if notice <= self.now:
                return self._stop(why, notice + self.site.notice_seconds)
            self._one_step(min(failure, hang))
        self._settle(math.inf)
        why = "finished" if self.step >= self.total else "the simulation ends"
        return _End(why, 0, closed=True)

    def _one_step(self, until: float) -> None:
        """A step, and the save that is due after it; nothing of it counts if something happens before ``until``."""
        if self.now + self.case.step > until:
            self._pass("lost", until - self.now)
            return
        self.now += self.case.step
        self.step += 1
        self.logged = self.step
        self.furthest = max(self.furthest, self.step)
        if due(self.config.save.every, self.step, self.total):
            self._save()

    def _save(self) -> None:
        """Training waits for the copy, and for the save before it if that is not through yet."""
        if self.pending is not None:
            if self.config.save.when_busy == "skip" and self.pending.at > self.now and self.step < self.total:
                self.left_out += 1
                return
            self._pass("stalled", max(0.0, self.pending.at - self.now))
            self._settle(self.now)
        self._pass("stalled", self.case.stall)
        self.pending = _Pending(self.step, self.now + self.case.write)
        if not self.config.save.asynchronous:
            self._pass("stalled", self.case.write)

    def _settle(self, now: float) -> None:
        """Commit what was through by ``now``; what was not is gone with its process."""
        pending, self.pending = self.pending, None
        if pending is not None and pending.at <= now:
            self._commit(pending.step)

    def _commit(self, step: int) -> None:
        facts = CheckpointFacts(
            step=step, samples_consumed=step * self.config.batch.size, tokens_consumed=0, world_size=self._ranks(),
            config="simulated", manifest_digest="simulated", code_version=__version__, precision="simulated",
        )  # fmt: skip

        def write(folder: Path) -> None:
            (folder / "model.safetensors").write_bytes(step.to_bytes(8, "little"))

        saved = self.checkpoints.save(facts, write)
        self.saved = step
        self.checkpoints.close()  # the upload is through: a thread would make the outcome depend on this machine
        self.saves += 1
        if self.damage.happens(self.case.damage):
            (saved.folder / "model.safetensors").write_bytes(b"\xff" * 8)

    def _stop(self, why: str, killed: float) -> _End:
        """Notice came: save what is done. Whoever is not through in time is killed."""
        if self.pending is not None:
            self._pass("stalled", max(0.0, min(self.pending.at, killed) - self.now))
            self._settle(self.now)
        if self.step == self.saved:
            return _End(why, EXIT_REQUEUE, notice=True, closed=True)
        at = self.now + self.case.stall + self.case.write
        if at > killed:
            self._pass("lost", killed - self.now)
            return _End(f"{why}, killed before it had saved", _KILLED, notice=True)
        self._pass("stalled", at - self.now)
        self._commit(self.step)
        return _End(why, EXIT_REQUEUE, notice=True, closed=True)

    def _die(self, at: float, end: _End) -> _End:
        self._settle(at)
        return end

    # ── between attempts ─────────────────────────────────────────────────────────────────────────────────────────
    def _preflight(self) -> bool:
        """Look at the nodes; False: one is bad, and another job has taken the place of this one."""
        self._pass("starting", self.case.preflight)
        names = [f"node{number}" for number in range(self.case.nodes.count)]
        bad = self.damage.happens(self.case.bad_node)
        reports = [NodeReport(name, rank, 0.0, "", {}, ()) for rank, name in enumerate(names[bad:], bad)]
        wrong = judge(reports, names)
        if not wrong:
            return True
        verdict = self.script.after(0, bad=",".join(to_avoid(wrong, names)), excluded=",".join(self.excluded))
        self.ends["bad node"] += 1
        self.excluded = [*self.excluded, *to_avoid(wrong, names)] if verdict.resubmitted else []
        self._new_job(by_hand=not verdict.resubmitted)
        return False

    def _after(self, end: _End) -> None:
        """Slurm requeues a job whose node died; for all others the batch shell decides."""
        if end.by_slurm:
            self._pass("waiting", self.case.nodes.detect)
        elif not self.script.after(end.code, notice=end.notice).requeued:
            self._new_job(by_hand=True)
            return
        self.restarts += 1
        self._pass("waiting", self.case.nodes.requeue)

    def _new_job(self, *, by_hand: bool) -> None:
        self.job, self.restarts = self.job + 1, 0
        if by_hand:
            self.gave_up += 1
            self._pass("by hand", self.case.by_hand)

    def _pass(self, what: str, seconds: float, until: float = math.inf) -> None:
        """Time goes by, for something that is no step."""
        end = min(self.now + seconds, max(self.now, until))
        self.spent[what] = self.spent.get(what, 0.0) + end - self.now
        self.now = end

    def _clock(self) -> datetime:
        return _BEGAN + timedelta(seconds=self.now)

    def _ranks(self) -> int:
        return self.case.nodes.count * self.site.processes_per_node

    def _outcome(self) -> TrainOutcome:
        attempts = read_attempts(self.folder)
        lost = sum(attempt.steps_lost for attempt in attempts)
        again = self.spent.pop("lost", 0.0) + lost * self.case.step
        spent = self.spent | {"taken again": again}
        uploads = self.saves if self.mirror is not None else 0
        parts = parts_of(self.case.checkpoint_bytes)
        traffic = self.mirror.traffic.total() if self.mirror is not None else Traffic()
        return TrainOutcome(
            seconds=self.now,
            steps=self.furthest,
            steps_lost=lost,
            goodput=self.furthest * self.case.step / self.now,
            attempts=len(attempts),
            ends=dict(self.ends.most_common()),
            spent=dict(sorted(spent.items(), key=lambda item: -item[1])),
            saves=self.saves,
            left_out=self.left_out,
            passed_over=self.passed_over,
            kept=tuple(item.step for item in self.checkpoints.list()),
            uploaded=traffic + Traffic(put=uploads * (parts - 1), post=2 * uploads * (parts > 1),
                                       bytes_up=uploads * self.case.checkpoint_bytes),
            gave_up=self.gave_up,
        )  # fmt: skip
