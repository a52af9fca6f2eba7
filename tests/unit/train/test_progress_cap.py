"""A requeued job that saves nothing new comes to an end."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmbatch.errors import NoProgressError
from lmbatch.train.attempts import Attempt, AttemptLog, check_progress


def attempt(job: str | None, began: int | None, why: str | None = "stopped") -> Attempt:
    return Attempt(
        id="x", started="", pid=1, host="n1", job_id=job, restarts=0, world_size=2, code_version="1", config="c",
        resumed_from=began, why=why, detail="SIGUSR2",
    )  # fmt: skip


def check(earlier: list[Attempt], step: int, job: str | None = "7", most: int = 3) -> None:
    check_progress(earlier, job_id=job, step=step, most=most)


def test_attempts_that_began_where_this_one_begins_are_counted() -> None:
    stuck = [attempt("7", 0), attempt("7", 40), attempt("7", 40), attempt("7", None, None)]
    check(stuck[:3], 40)
    with pytest.raises(NoProgressError, match=r"job 7 has saved no step after 40 in 3 attempts.*died without notice"):
        check(stuck, 40)


def test_a_saved_step_begins_the_count_anew() -> None:
    check([attempt("7", 0)] * 9, 10)


def test_step_0_is_a_place_to_be_stuck_at_too() -> None:
    with pytest.raises(NoProgressError):
        check([attempt("7", 0)] * 3, 0)


@pytest.mark.parametrize("job", ["8", None])
def test_another_job_and_a_run_without_one_may_try_again(job: str | None) -> None:
    check([attempt("7", 0)] * 9, 0, job=job)
    check([attempt(None, 0)] * 9, 0, job=job)


def test_the_ledger_knows_the_attempts_before_its_own(tmp_path: Path) -> None:
    for number in range(2):
        log = AttemptLog(tmp_path)
        assert len(log.earlier) == number
        log.started(world_size=1, code_version="1", config="c", environ={"SLURM_JOB_ID": "7"})
        assert log.job_id == "7"
        log.resumed(0, last_logged=0)
        log.ended("stopped", detail="SIGTERM", last_step=0, last_saved_step=None)
