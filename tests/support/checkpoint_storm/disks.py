"""Disks that have no room left. Where mounts are refused, a limit on the size of a file stands in."""

from __future__ import annotations

from support.checkpoint_storm.damages import prepare
from support.checkpoint_storm.disk import SmallDisk
from support.checkpoint_storm.judge import check_reason
from support.checkpoint_storm.run import Run

MOST_KIB = 480  # three checkpoints of 100 KiB and the records fit into this
LARGEST_FILE = 45_000  # bytes; a little more than the largest


def full(run: Run) -> None:
    """The run folder lies on a small disk, which fills up at some point, or does not."""
    if not run.around.mounts:
        limited(run)
        return
    run.parent.mkdir()
    run.disk = SmallDisk(run.parent, run.lot.randint(8, MOST_KIB))
    _attempt(run)


def full_while_fetching(run: Run) -> None:
    """The run folder is lost, and its copy does not fit on the disk that it comes back to."""
    prepare(run)
    run.lose_run_folder()
    if not run.around.mounts:
        _attempt(run, largest_file=run.lot.randrange(2_000, LARGEST_FILE))
        return
    run.disk = SmallDisk(run.parent, run.lot.randint(16, MOST_KIB // 2))
    _attempt(run)


def limited(run: Run) -> None:
    """No file may be larger than this (EFBIG)."""
    _attempt(run, largest_file=run.lot.randrange(500, LARGEST_FILE))


def _attempt(run: Run, largest_file: int | None = None) -> None:
    ended = run.attempt(largest_file=largest_file)
    if ended.code != 0:
        check_reason(ended, str(run.run_dir))
