"""Preprocessing as array jobs of a real Slurm: the bytes of a quiet run, whatever happens on the way."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

from lmbatch.preprocess import Heartbeat, read_heartbeats
from lmbatch.report import store_status
from lmbatch.store import open_store
from support.slurm_site import ARRAY, Site, wait_until


def submitted(site: Site) -> list[list[str]]:
    """The tasks of each submission, with repetitions."""
    indexes = [json.loads(path.read_text()) for path in site.jobs.glob("*/slurm-*/batches.json")]
    return [[task for batch in index["batches"] for task in batch["tasks"]] for index in indexes]


def elements(site: Site) -> list[int]:
    """How many elements each submission has."""
    return [len(json.loads(path.read_text())["batches"]) for path in site.jobs.glob("*/slurm-*/batches.json")]


def workers(site: Site) -> list[psutil.Process]:
    """Processes that do tasks of this test on the nodes. Others beside it have some of their own on this machine."""
    found = []
    for process in psutil.process_iter(["cmdline", "name"]):
        words = process.info["cmdline"] or []
        own = "submitit.core._submit" in words and words[-1].startswith(f"{site.base}/")
        if own and "python" in process.info["name"]:
            found.append(process)
    return found


def test_arrays_within_the_limits_give_the_bytes_of_a_quiet_run(site: Site) -> None:
    """No array is larger than the cluster allows, and no more elements run than the site allows, over all arrays."""
    marks = site.base / "marks"
    marks.mkdir()
    count = [f"touch {marks}/$SLURM_JOB_ID", f"trap 'rm {marks}/$SLURM_JOB_ID' EXIT",
             f"ls {marks} | wc -l >> {site.base}/counts"]  # fmt: skip
    site.run(max_parallel=2, setup=count)
    site.assert_same_bytes()
    assert max(elements(site)) <= ARRAY
    assert len(elements(site)) >= 2
    assert max(Counter(task for tasks in submitted(site) for task in tasks).values()) == 1
    seen = [int(line) for line in (site.base / "counts").read_text().split()]
    assert len(seen) == sum(elements(site))
    assert max(seen) == 2


def test_several_small_tasks_share_an_element(site: Site) -> None:
    site.run(max_parallel=1, batch_bytes="1GiB")
    site.assert_same_bytes()
    assert sum(elements(site)) < len({task for tasks in submitted(site) for task in tasks}) / 3


def test_object_storage_and_no_file_with_its_credentials(site: Site, s3_uri: str) -> None:
    site.run(store=f"{s3_uri}/corpus")
    site.assert_same_bytes(f"{s3_uri}/corpus")
    written = [path.read_bytes() for path in site.jobs.rglob("*") if path.is_file()]
    assert len(written) > 20
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        assert not any(os.environ[name].encode() in data for data in written)


def test_a_killed_task_is_submitted_again_and_nothing_else_is(site: Site) -> None:
    driver = site.start(held=True, max_parallel=2)
    wait_until(lambda: len(site.waiting()) == 2)
    workers(site)[0].send_signal(signal.SIGKILL)
    site.gate.touch()
    site.finish(driver)
    site.assert_same_bytes()
    times = Counter(task for tasks in submitted(site) for task in tasks)
    first = json.loads(next(iter(site.jobs.glob("*/slurm-*/batches.json"))).read_text())["batches"][0]["tasks"]
    assert 1 <= sum(count - 1 for count in times.values()) <= len(first) + 1


def test_when_the_retries_are_used_up_the_reason_and_the_log_are_named(site: Site) -> None:
    driver = site.start("--set", "retries=0", held=True, max_parallel=2)
    wait_until(lambda: len(site.waiting()) == 2)
    workers(site)[0].send_signal(signal.SIGKILL)
    site.gate.touch()
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 1, errors
    assert "FAILED (killed by signal 9) on" in errors
    log = next(word for word in errors.split() if word.endswith("_log.err"))
    assert Path(log).exists()
    site.run()
    site.assert_same_bytes()


def test_a_killed_driver_leaves_jobs_that_the_next_one_goes_on_with(site: Site) -> None:
    first = site.start(held=True, max_parallel=2)
    wait_until(lambda: len(site.waiting()) == 2)
    first.kill()
    first.communicate()
    assert site.queue().count("RUNNING") == 2
    second = site.start(held=True, max_parallel=2)
    assert second.stderr
    assert "found 4 elements of this run in the queue" in second.stderr.readline()
    site.gate.touch()
    site.finish(second)
    site.assert_same_bytes()
    assert max(Counter(task for tasks in submitted(site) for task in tasks).values()) == 1


def test_two_drivers_at_once_do_no_harm(site: Site) -> None:
    """Both may submit a task, as neither knows of the other; it is done twice at the most, and counts once."""
    drivers = [site.start() for _ in range(2)]
    for driver in drivers:
        site.finish(driver)
    site.assert_same_bytes()
    assert max(Counter(task for tasks in submitted(site) for task in tasks).values()) <= 2


def test_ctrl_c_takes_the_jobs_out_of_the_queue(site: Site) -> None:
    driver = site.start(held=True)
    wait_until(lambda: bool(site.waiting()))
    driver.send_signal(signal.SIGINT)
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 130, errors
    wait_until(lambda: not site.queue() and not workers(site))


def test_a_cancelled_job_is_not_submitted_again(site: Site) -> None:
    driver = site.start(held=True, max_parallel=1, batch_bytes="1GiB")
    wait_until(lambda: bool(site.waiting()))
    site.cluster.run("scancel", f"--user={os.getuid()}")
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 1
    assert "CANCELLED" in errors
    assert len(elements(site)) == 1


def test_what_keeps_a_job_from_starting_is_said(site: Site) -> None:
    driver = site.start(options={"hold": True})
    assert driver.stderr
    assert "JobHeldUser" in driver.stderr.readline()
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=120)
    wait_until(lambda: not site.queue())


@pytest.mark.parametrize("wrong", [{"partition": "nowhere"}, {"memory": "1TiB"}])
def test_what_slurm_will_never_take_is_an_error(site: Site, wrong: dict[str, str]) -> None:
    driver = site.start(**wrong)
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 1
    assert "sbatch refused the job" in errors
    assert "site file" in errors
    assert "Traceback" not in errors


def test_status_shows_the_elements_that_run_and_how_far_they_are(site: Site) -> None:
    """Another process than the driver sees it, by the heartbeats in the store."""
    driver = site.start("--set", "heartbeat_seconds=0.2", held=True, max_parallel=2)
    wait_until(lambda: len(site.waiting()) == 2)
    store = open_store(str(site.base / "store"))
    wait_until(lambda: store_status(store).tasks_running == 2, what="for two heartbeats")
    status = store_status(store)
    assert status.tasks_done == 0
    running = site.cluster.run("squeue", "-h", "-r", "-t", "R", "-o", "%i").stdout.split()
    assert sorted(item.job or "" for item in status.running) == sorted(running)
    assert {item.share for item in status.running} == {1.0}  # they are held before their receipts
    assert all(item.documents and item.tokens and item.file.startswith("part-") for item in status.running)
    assert status.input_bytes_at_work == sum(item.bytes_done for item in status.running) > 0
    assert status.bytes_per_second
    assert status.seconds_left
    site.gate.touch()
    site.finish(driver)
    site.assert_same_bytes()
    assert list(store.list("heartbeats/")) == []


def is_of(beat: Heartbeat, process: psutil.Process) -> bool:
    """Nodes have process ids of their own."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    inner = next(line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:"))
    return beat.pid == int(inner) and beat.space.endswith(str(Path(f"/proc/{process.pid}/ns/pid").readlink()))


def test_the_heartbeat_of_a_killed_element_is_ignored_and_removed(site: Site) -> None:
    driver = site.start("--set", "heartbeat_seconds=0.2", held=True, max_parallel=2)
    wait_until(lambda: len(site.waiting()) == 2)
    store = open_store(str(site.base / "store"))
    wait_until(lambda: store_status(store).tasks_running == 2, what="for two heartbeats")
    victim = workers(site)[0]
    names = {item.beat.worker for item in read_heartbeats(store) if item.beat.pid == victim.pid}
    victim.send_signal(signal.SIGKILL)
    wait_until(
        lambda: not names & {item.beat.worker for item in read_heartbeats(store)}, what="for it to be taken away"
    )
    site.gate.touch()
    site.finish(driver)
    site.assert_same_bytes()
