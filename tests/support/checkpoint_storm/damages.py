"""Checkpoints that are spoilt between two attempts, and run folders that are lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from support.checkpoint_storm.child import Strike
from support.checkpoint_storm.run import STEPS, Run
from support.checkpoint_storm.survey import by_name, payload, receipts

HOWS = ("flip", "cut", "delete")
RECEIPT = "receipt.json"
FILES = (
    "model.safetensors", "optimizer.safetensors", "optimizer.json", "rng.safetensors", "rng.json", "extra.json",
    RECEIPT,
)  # fmt: skip


def prepare(run: Run, *, first: int = 4) -> None:
    """Train for a while, to the end now and then."""
    step = run.lot.randint(first, STEPS)
    if step == STEPS:
        assert run.attempt().code == 0
    else:
        run.train_until_stopped(step)


def newest(run: Run, place: str, name: str, how: str) -> None:
    """Spoil a file of the newest checkpoint; nothing if there is none."""
    found = receipts(run.store(place))
    if found:
        _spoil(run, place, found[-1][0], name, how)


def every(run: Run, place: str, how: str) -> None:
    """Spoil a file of every checkpoint."""
    for receipt, _ in receipts(run.store(place)):
        _spoil(run, place, receipt, run.lot.choice(FILES), how)


def _spoil(run: Run, place: str, receipt: str, name: str, how: str) -> None:
    if how == "delete" and name == RECEIPT:
        name = FILES[0]  # a step without a receipt is one that was never saved: see `unsaved`
    key = receipt if name == RECEIPT else receipt.removesuffix(RECEIPT) + _path_of(run, place, receipt, name)
    run.damage(place, key, how)


def _path_of(run: Run, place: str, receipt: str, name: str) -> str:
    keys = payload(run.store(place), receipt)
    assert name in by_name(keys)
    return next(key for key in keys if key.endswith(f"/{name}")).removeprefix(receipt.removesuffix(RECEIPT))


def of_newest(name: str, how: str) -> Callable[[Run], None]:
    """In the run folder."""

    def cause(run: Run) -> None:
        prepare(run)
        if how == "delete" and name == RECEIPT:
            run.unsave("run")
        else:
            newest(run, "run", name, how)

    return cause


def of_all(how: str) -> Callable[[Run], None]:
    """In the run folder, without a copy elsewhere: it must refuse."""

    def cause(run: Run) -> None:
        prepare(run)
        every(run, "run", how)

    return cause


def of_mirror(how: str) -> Callable[[Run], None]:
    """The newest copy in the store, or all; the run folder is lost."""

    def cause(run: Run) -> None:
        prepare(run)
        if run.lot.random() < 0.5:
            newest(run, "mirror", run.lot.choice(FILES), how)
        else:
            every(run, "mirror", how)
        run.lose_run_folder()

    return cause


def of_both(how: str) -> Callable[[Run], None]:
    """The newest checkpoint in both places, or all that there are."""

    def cause(run: Run) -> None:
        prepare(run)
        whole = run.lot.random() < 0.5
        for place in run.places:
            if whole:
                every(run, place, how)
            else:
                newest(run, place, run.lot.choice(FILES), how)

    return cause


def lost(run: Run) -> None:
    """The whole run folder."""
    prepare(run, first=1)
    run.lose_run_folder()


def checkpoints_lost(run: Run) -> None:
    """Only the checkpoints."""
    prepare(run, first=1)
    shutil.rmtree(run.run_dir / "checkpoints")


def newer(run: Run) -> None:
    """The newest checkpoint, of lmbatch's own next version."""
    prepare(run)
    newest(run, "run", RECEIPT, "newer")
    run.may_refuse = True


def newer_in_mirror(run: Run) -> None:
    """The same in the store, and the run folder is lost."""
    prepare(run)
    newest(run, "mirror", RECEIPT, "newer")
    run.lose_run_folder()
    run.may_refuse = True


__all__ = ["FILES", "HOWS", "Strike"]
