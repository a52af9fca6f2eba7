"""A store that is away, slow, or answers badly: a proxy before the real S3 server."""

from __future__ import annotations

from collections.abc import Callable

from support.checkpoint_storm.damages import prepare
from support.checkpoint_storm.judge import check_reason
from support.checkpoint_storm.run import STEPS, BadOutcomeError, Run

BAD_ANSWERS = ("503", "refused", "reset", "lost answer", "truncated")
REQUESTS = 60  # of one attempt, about


def down(run: Run) -> None:
    """From some step on: the training says so, and its local checkpoints are good."""
    run.train_until_stopped(run.lot.randint(1, STEPS - 4))
    run.around.proxy.outage(run.lot.choice(("refused", "503", "reset")))
    ended = run.attempt()
    if ended.code == 0:
        raise BadOutcomeError("NOT REFUSED", "no upload can have worked, and nobody was told")
    check_reason(ended, run.around.s3)


def down_and_folder_lost(run: Run) -> None:
    """Nothing can be said of earlier checkpoints: beginning at step 0 would be wrong."""
    prepare(run)
    run.lose_run_folder()
    run.around.proxy.outage(run.lot.choice(("refused", "503", "reset")))
    ended = run.attempt()
    if ended.code == 0:
        raise BadOutcomeError("NOT REFUSED", "it began without a look at the store")
    check_reason(ended, run.around.s3)


def full(run: Run) -> None:
    """The store's own disk."""
    run.train_until_stopped(run.lot.randint(1, STEPS - 4))
    run.around.proxy.outage("full")
    ended = run.attempt()
    if ended.code == 0:
        raise BadOutcomeError("NOT REFUSED", "no upload can have worked, and nobody was told")
    check_reason(ended, run.around.s3)


def slow(run: Run) -> None:
    """Every request takes its time."""
    run.around.proxy.delay = run.lot.uniform(0.005, 0.03)
    _attempts(run)


def for_a_while(*faults: str) -> Callable[[Run], None]:
    """A few requests in a row fail, and then no more."""

    def cause(run: Run) -> None:
        if run.lot.random() < 0.5:
            prepare(run)
            run.lose_run_folder()
        for _ in range(run.lot.randint(0, 2)):
            run.around.proxy.inject(run.lot.choice(("GET", "PUT", "HEAD")), run.lot.choice(faults))
        run.around.proxy.outage(*faults, requests=run.lot.randint(3, 6))
        _attempts(run)

    return cause


def weather(run: Run) -> None:
    """A tenth of all requests fails, in every way that there is."""
    run.around.proxy.weather(0.1, run.lot.randrange(2**32))
    _attempts(run)


def _attempts(run: Run) -> None:
    """Through to the end, or to an error of ours; maybe from the store in between."""
    if run.lot.random() < 0.5 and not run.lost:
        prepare(run)
        run.lose_run_folder()
    ended = run.attempt()
    if ended.code != 0:
        check_reason(ended, run.around.s3)


CAUSES: dict[str, Callable[[Run], None]] = {
    "store down": down,
    "store down, run folder lost": down_and_folder_lost,
    "store full": full,
    "store slow": slow,
    **{f"store: {fault}": for_a_while(fault) for fault in BAD_ANSWERS},
    "store: all of these": for_a_while(*BAD_ANSWERS),
    "store: bad weather": weather,
}
