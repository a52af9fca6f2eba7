"""The run ledger tells every attempt's story, that of a sudden death included."""

from __future__ import annotations

import pytest

from lmbatch.train.attempts import ATTEMPTS_FILE, DIED, AttemptLog, read_attempts


def start(folder, **environ):
    log = AttemptLog(folder)
    log.started(world_size=1, code_version="0.1.0", config="sha256:c", environ=environ)
    return log


def test_a_run_that_never_started_has_no_attempts(tmp_path):
    assert read_attempts(tmp_path) == []


def test_an_attempt_that_ended_by_itself(tmp_path):
    log = start(tmp_path, SLURM_JOB_ID="77", SLURM_RESTART_COUNT="2")
    log.resumed(40, last_logged=40)
    log.first_step(1.5)
    assert read_attempts(tmp_path)[0].why is None
    log.ended("stopped", detail="SIGTERM", last_step=55, last_saved_step=55)
    (attempt,) = read_attempts(tmp_path)
    assert (attempt.id, attempt.job_id, attempt.restarts, attempt.world_size) == (log.id, "77", 2, 1)
    assert (attempt.resumed_from, attempt.seconds_to_first_step) == (40, 1.5)
    assert (attempt.why, attempt.detail, attempt.last_step, attempt.steps_lost) == ("stopped", "SIGTERM", 55, 0)


def test_the_restart_count_is_zero_before_the_first_requeue(tmp_path):
    start(tmp_path, SLURM_JOB_ID="77")
    assert read_attempts(tmp_path)[0].restarts == 0


def test_the_next_attempt_closes_one_that_died_and_counts_what_it_cost(tmp_path):
    start(tmp_path).resumed(0, last_logged=0)
    start(tmp_path).resumed(40, last_logged=57)
    dead, alive = read_attempts(tmp_path)
    assert (dead.why, dead.last_step, dead.steps_lost) == (DIED, 57, 17)
    assert (alive.why, alive.resumed_from) == (None, 40)
    third = start(tmp_path)
    third.resumed(40, last_logged=40)
    assert [(a.why, a.steps_lost) for a in read_attempts(tmp_path)] == [(DIED, 17), (DIED, 0), (None, 0)]


def test_a_failure_costs_the_steps_since_the_last_checkpoint(tmp_path):
    log = start(tmp_path)
    log.resumed(40, last_logged=40)
    log.ended("failed", detail="StoreError: gone", last_step=47, last_saved_step=40)
    assert read_attempts(tmp_path)[0].steps_lost == 7


def test_events_are_only_appended(tmp_path):
    start(tmp_path)
    before = (tmp_path / ATTEMPTS_FILE).read_bytes()
    start(tmp_path).resumed(0, last_logged=3)
    assert (tmp_path / ATTEMPTS_FILE).read_bytes().startswith(before)


def test_an_event_torn_by_a_kill_is_no_event(tmp_path):
    start(tmp_path)
    with (tmp_path / ATTEMPTS_FILE).open("ab") as file:
        file.write(b'{"event": "ended", "att')
    assert read_attempts(tmp_path)[0].why is None
    start(tmp_path).resumed(0, last_logged=5)
    assert [a.why for a in read_attempts(tmp_path)] == [DIED, None]


@pytest.mark.parametrize("name", ["attempts", "metrics", "stop", "launcher", "session", "schedule"])
def test_reading_a_run_needs_no_torch(name):
    import subprocess
    import sys

    code = f"import sys, lmbatch.train.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
