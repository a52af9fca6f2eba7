"""Every fault of the storm, by the name that it has in the table."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from lmbatch.checkpoint.stages import Stage
from support.checkpoint_storm import damages, disks, jobs, stores
from support.checkpoint_storm.child import Strike
from support.checkpoint_storm.run import STEPS, Run

ANYWHERE = ("none", "folder", "s3")
COPIED = ("folder", "s3")
OPERATIONS = 90  # on files of the run folder in one undisturbed attempt, about
SECONDS = 0.6  # that such an attempt takes, about
LOCAL = tuple(stage for stage in Stage if "UPLOAD" not in stage.name and "FETCH" not in stage.name)
UPLOAD = tuple(stage for stage in Stage if "UPLOAD" in stage.name)
FETCH = (Stage.MID_FETCH, Stage.MID_PAYLOAD, Stage.AFTER_FETCH)
SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR2")


@dataclass(frozen=True)
class Fault:
    """``mirrors``: with which kinds of mirror it can be. ``timed``: a clock decides, so no two are the same."""

    name: str
    cause: Callable[[Run], None]
    mirrors: tuple[str, ...] = ANYWHERE
    timed: bool = False


def killed(run: Run, *strikes: Strike) -> None:
    """An attempt that is killed, or that is done before it can be."""
    code = run.attempt(*strikes).code
    assert code in (-signal.SIGKILL, 0), run.ended[-1].said


def stopped(run: Run, *strikes: Strike) -> None:
    """An attempt that is asked to stop, maybe too late."""
    code = run.attempt(*strikes).code
    assert code in (75, 0, -signal.SIGKILL), run.ended[-1].said


def at_stage(stage: Stage, deed: str = "SIGKILL") -> Callable[[Run], None]:
    """In one of the saves that pass this stage."""
    late = stage in (Stage.RECEIPT_DELETED, Stage.UPLOAD_RECEIPT_DELETED)
    # An upload may be left out for the one after it, but never the first and the last.
    most = 1 if late else 2 if stage in UPLOAD else 4
    ending = killed if deed == "SIGKILL" else stopped

    def cause(run: Run) -> None:
        ending(run, Strike("stage", run.lot.randint(1, most), deed, stage.name))
        # A stop that is asked for in the last upload of all comes too late.
        assert late or deed != "SIGKILL" or run.ended[-1].code != 0, f"it never came by {stage.name}"

    return cause


def while_fetching(stage: Stage) -> Callable[[Run], None]:
    """The run folder is lost, and the attempt that brings its checkpoint back is killed."""

    def cause(run: Run) -> None:
        run.train_until_stopped(run.lot.randint(1, STEPS - 1))
        run.lose_run_folder()
        killed(run, Strike("stage", 1, "SIGKILL", stage.name))

    return cause


def after_a_step(run: Run) -> None:
    """Killed between two steps."""
    killed(run, Strike("step", run.lot.randint(1, STEPS)))


def at_an_operation(run: Run) -> None:
    """Killed just before a file of the run folder is opened, renamed, linked or removed."""
    killed(run, Strike("operation", run.lot.randint(1, OPERATIONS)))


def at_a_moment(run: Run) -> None:
    """Killed from outside, wherever it is."""
    process, log = run.start()
    process.join(run.lot.uniform(0.02, SECONDS))
    process.kill()
    run.wait((process, log))


def again_and_again(run: Run) -> None:
    """Killed three to five times in a row; every attempt has a little more to do than the one before."""
    for _ in range(run.lot.randint(3, 5)):
        killed(run, Strike("operation", run.lot.randint(1, OPERATIONS)))


def signal_at_an_operation(run: Run) -> None:
    """A signal that asks for a stop, in the middle of anything."""
    stopped(run, Strike("operation", run.lot.randint(1, OPERATIONS), run.lot.choice(SIGNALS)))


def stop_file(run: Run) -> None:
    """The file `stop`."""
    stopped(run, Strike("step", run.lot.randint(1, STEPS), "stop file"))


def killed_while_stopping(run: Run) -> None:
    """The save that a stop asks for is killed."""
    stage = run.lot.choice((Stage.BEFORE_PAYLOAD, Stage.MID_PAYLOAD, Stage.BEFORE_RECEIPT, Stage.AFTER_RECEIPT))
    saves = {4: 2, 5: 2, 7: 3, 8: 3, 10: 4, 11: 4}
    step = run.lot.choice(list(saves))
    stopped(run, Strike("step", step, "SIGTERM"), Strike("stage", saves[step], "SIGKILL", stage.name))


def all_at_once(run: Run) -> None:
    """BadOutcomeError weather, a kill, a stop request, and a spoilt file."""
    run.around.proxy.weather(0.05, run.lot.randrange(2**32))
    killed(run, Strike("operation", run.lot.randint(30, OPERATIONS)))
    stopped(run, Strike("step", run.lot.randint(1, 6), run.lot.choice(SIGNALS)))
    damages.newest(run, "run", run.lot.choice(damages.FILES), run.lot.choice(damages.HOWS))
    killed(run, Strike("operation", run.lot.randint(1, OPERATIONS)))


def faults() -> tuple[Fault, ...]:
    """The catalogue."""
    return (
        *(Fault(f"kill -9: {stage.value}", at_stage(stage)) for stage in LOCAL),
        *(Fault(f"kill -9: {stage.value}", at_stage(stage), COPIED) for stage in UPLOAD),
        *(Fault(f"kill -9 while fetching: {stage.value}", while_fetching(stage), COPIED) for stage in FETCH),
        Fault("kill -9: after a step", after_a_step),
        Fault("kill -9: at a file operation", at_an_operation),
        Fault("kill -9: at any moment", at_a_moment, timed=True),
        Fault("kill -9: again and again", again_and_again),
        *_stops(),
        *_damages(),
        Fault("disk full", disks.full),
        Fault("disk full while fetching", disks.full_while_fetching, COPIED),
        Fault("file size limit", disks.limited),
        *(Fault(name, cause, ("s3",)) for name, cause in stores.CAUSES.items()),
        Fault("second job", jobs.second_job),
        Fault("second job, first one killed", jobs.second_job_after_a_kill),
        Fault("two jobs at the same time", jobs.two_jobs, timed=True),
        Fault("all at once", all_at_once, ("s3",)),
    )


def _stops() -> Iterator[Fault]:
    for stage in (Stage.MID_PAYLOAD, Stage.BEFORE_RECEIPT, Stage.AFTER_RECEIPT):
        yield Fault(f"stop signal: {stage.value}", at_stage(stage, "SIGTERM"))
    yield Fault("stop signal: mid-upload", at_stage(Stage.MID_UPLOAD, "SIGTERM"), COPIED)
    yield Fault("stop signal: at a file operation", signal_at_an_operation)
    yield Fault("stop file", stop_file)
    yield Fault("kill -9 while stopping", killed_while_stopping)


def _damages() -> Iterator[Fault]:
    for how, name in product(damages.HOWS, damages.FILES):
        yield Fault(f"{how}: {name}", damages.of_newest(name, how))
    for how in damages.HOWS:
        yield Fault(f"{how}: every checkpoint", damages.of_all(how), ("none",))
        yield Fault(f"{how}: in the store, run folder lost", damages.of_mirror(how), COPIED)
        yield Fault(f"{how}: in the run folder and the store", damages.of_both(how), COPIED)
    yield Fault("run folder lost", damages.lost, COPIED)
    yield Fault("checkpoints lost", damages.checkpoints_lost, COPIED)
    yield Fault("receipt of a newer version", damages.newer)
    yield Fault("receipt of a newer version in the store", damages.newer_in_mirror, COPIED)
