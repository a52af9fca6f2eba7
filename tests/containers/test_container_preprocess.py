"""Preprocessing in containers: on array jobs of a real Slurm and on one machine, the bytes of a run without any."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from lmbatch.config import ContainerSite
from lmbatch.launch.backend import TaskBatch
from lmbatch.launch.contained_batch import ContainedBatch
from lmbatch.launch.slurm_memory import is_out_of_memory
from lmbatch.store import open_store
from support.container_image import container_image
from support.drive import contents, in_child, prepare
from support.slurm_site import (
    HELD,
    NODES,
    Site,
    SlurmCluster,
    config_of,
    used_site,
    wait_until,
    write_corpus_and_quiet_store,
)
from support.wudao import config_for, write_files, write_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first one to ask builds the image


@pytest.fixture(scope="session")
def folder_image() -> dict[str, Any]:
    """The section of a site file whose tasks run in the image as a folder, by Charliecloud."""
    if shutil.which("ch-run") is None:
        pytest.skip("this machine has no ch-run: run `cluster/install.sh charliecloud-runtime` as root")
    return {"runtime": "charliecloud", "image": str(container_image("preprocess").folder())}


@pytest.fixture
def podman_image(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The same by podman, which this test's commands find by the environment."""
    image = container_image("preprocess")
    for name, value in image.environment.items():
        monkeypatch.setenv(name, value)
    return {"runtime": "podman", "image": image.tag}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus_and_quiet_store(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def folder_site(
    slurm_cluster: SlurmCluster, corpus: Path, tmp_path: Path, folder_image: dict[str, Any]
) -> Iterator[Site]:
    """Tasks run in the image as a folder, by Charliecloud."""
    yield from used_site(Site(slurm_cluster, corpus, tmp_path, folder_image))


@pytest.fixture
def podman_site(
    slurm_cluster: SlurmCluster, corpus: Path, tmp_path: Path, podman_image: dict[str, Any]
) -> Iterator[Site]:
    """Tasks run in the image by podman."""
    yield from used_site(Site(slurm_cluster, corpus, tmp_path, podman_image))
    wait_until(lambda: not containers(tmp_path), what="for the end of every container")


def held(site: Site) -> Site:
    """Its tasks wait for the gate inside."""
    assert site.container is not None
    site.container |= {
        "environment": ["PYTHONPATH", "LMBATCH_TEST_GATE"],
        "mounts": [*site.container.get("mounts", ()), f"{HELD}:{HELD}"],
    }
    return site


def inside(base: Path) -> list[psutil.Process]:
    """Processes that do a batch under this folder in a container."""
    found = []
    for process in psutil.process_iter(["cmdline", "name"]):
        words = process.info["cmdline"] or ()
        if process.info["name"].startswith("python") and "--lifeline" in words and str(base) in " ".join(words):
            found.append(process)
    return found


def containers(base: Path) -> list[str]:
    """Names of podman's containers that mount something under this folder, also of those that do not run."""
    listed = subprocess.run(["podman", "ps", "--all", "--format=json"], capture_output=True, text=True, check=True)
    return [found["Names"][0] for found in json.loads(listed.stdout) if str(base) in " ".join(found["Mounts"] or ())]


def test_arrays_on_two_nodes_reach_an_object_store_from_inside(folder_site: Site, s3_uri: str) -> None:
    folder_site.run(store=f"{s3_uri}/corpus")
    folder_site.assert_same_bytes(f"{s3_uri}/corpus")
    logs = [path.read_text() for path in folder_site.jobs.rglob("*_log.out")]
    assert len({text.partition("hostname=")[2].partition(",")[0] for text in logs}) == NODES
    assert len(list(folder_site.jobs.rglob("*_answer.json"))) == len(logs)
    written = b"".join(path.read_bytes() for path in folder_site.jobs.rglob("*") if path.is_file())
    assert not any(os.environ[name].encode() in written for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"))


def test_slurm_sees_what_the_work_died_of(folder_site: Site) -> None:
    """As without a container; what is out of memory is known by it."""
    driver = held(folder_site).start("--set", "retries=0", held=True, max_parallel=1, batch_bytes="1GiB")
    wait_until(lambda: bool(folder_site.waiting()))
    inside(folder_site.base)[0].send_signal(signal.SIGKILL)
    folder_site.gate.touch()
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 1, errors
    assert "FAILED (killed by signal 9) on" in errors


def test_a_killed_task_and_a_node_without_power_change_no_byte(folder_site: Site) -> None:
    driver = held(folder_site).start(held=True)
    names = folder_site.cluster.settings.names
    wait_until(lambda: set(names) <= set(folder_site.waiting()) and len(folder_site.waiting()) == 4)
    inside(folder_site.base)[0].send_signal(signal.SIGKILL)
    folder_site.cluster.kill_node(NODES)
    folder_site.gate.touch()
    folder_site.finish(driver)
    folder_site.assert_same_bytes()
    folder_site.cluster.start_node(NODES)
    states = ("sinfo", "-h", "-N", "-p", "main", "-o", "%t")
    wait_until(lambda: folder_site.cluster.run(*states).stdout.split() == ["idle"] * NODES)


def test_what_is_preempted_is_requeued_from_outside(folder_site: Site) -> None:
    driver = held(folder_site).start("--set", "retries=0", held=True, partition="scav")
    wait_until(lambda: len(folder_site.waiting()) == 4)
    urgent = folder_site.cluster.run("sbatch", "-p", "urgent", "-N", str(NODES), "--exclusive", "-o", "/dev/null",
                                     "--wrap", "sleep 1")  # fmt: skip
    assert urgent.returncode == 0
    wait_until(lambda: "PENDING" in folder_site.queue() and not inside(folder_site.base))
    folder_site.gate.touch()
    folder_site.finish(driver)
    folder_site.assert_same_bytes()


def test_a_cancelled_job_leaves_no_process_and_no_container(podman_site: Site) -> None:
    driver = held(podman_site).start(held=True, max_parallel=1, batch_bytes="1GiB")
    wait_until(lambda: bool(podman_site.waiting()))
    assert len(containers(podman_site.base)) == 1
    podman_site.cluster.run("scancel", f"--user={os.getuid()}")
    _, errors = driver.communicate(timeout=120)
    assert "CANCELLED" in errors
    wait_until(lambda: not inside(podman_site.base) and not containers(podman_site.base))


@pytest.mark.parametrize("image", ["folder_image", "podman_image"])
def test_ctrl_c_on_one_machine_leaves_nothing_and_the_next_run_has_the_same_bytes(
    image: str, request: pytest.FixtureRequest, corpus: Path, tmp_path: Path
) -> None:
    container: dict[str, Any] = request.getfixturevalue(image)
    variable = "--env" if container["runtime"] == "podman" else "--set-env"
    values = {"PYTHONPATH": HELD, "LMBATCH_TEST_GATE": tmp_path / "gate"}  # of the workers alone
    container |= {"mounts": [f"{HELD}:{HELD}"], "options": [f"{variable}={name}={values[name]}" for name in values]}
    driver = start_here(tmp_path, corpus, container)
    wait_until(lambda: len(list(tmp_path.glob("waiting-*"))) == 2)
    assert len(inside(tmp_path)) == 2
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=120)
    assert driver.returncode not in (0, 1)
    wait_until(lambda: not inside(tmp_path) and not (image == "podman_image" and containers(tmp_path)))
    (tmp_path / "gate").touch()
    Site.finish(start_here(tmp_path, corpus, container))
    assert contents(open_store(str(tmp_path / "store"))) == contents(open_store(str(corpus / "quiet")))
    assert not list((tmp_path / "spool").iterdir())
    assert image == "folder_image" or containers(tmp_path) == []


def start_here(base: Path, corpus: Path, container: dict[str, Any]) -> subprocess.Popen[str]:
    """The driver, with two workers on this machine."""
    config = config_of(corpus, base, "store").model_dump(mode="json")
    (base / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    (base / "site.yaml").write_text(yaml.safe_dump({"name": "here", "container": container}), encoding="utf-8")
    command = ["preprocess", "--config", "config.yaml", "--on", "local", "--site", "site.yaml", "--workers", "2"]
    return subprocess.Popen(
        [sys.executable, "-m", "lmbatch", *command],
        cwd=base, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def test_podman_keeps_to_the_jobs_memory(
    podman_image: dict[str, Any], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Its containers are in no control group of the job. The driver asks for more when it reads of a memory limit."""
    store, _, plan, _ = prepare(config_of(corpus, tmp_path, "store"))
    batch = TaskBatch(store.uri, (plan.tasks[0].id,), str(tmp_path / "spool"), raw=plan.raw)
    work = ContainedBatch(batch, ContainerSite.model_validate(podman_image))
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "32")
    monkeypatch.chdir(tmp_path)  # podman's monitor leaves a file `oom` where it was started
    # A name of this process: whoever runs the same test in another tree may share podman's containers.
    assert in_child(lambda: work.run(tmp_path, f"{os.getpid()}_1")) == -signal.SIGKILL
    words = capfd.readouterr().err
    assert is_out_of_memory(None, words)
    assert "32 MiB" in words
    assert containers(tmp_path) == []


def test_what_went_wrong_comes_out_word_for_word(tmp_path: Path, folder_image: dict[str, Any]) -> None:
    """A bad record stands in its task's receipt, with file, byte and reason; what failed is told by the answer."""
    first, second = (tmp_path / "raw" / name for name in ("part-2021278600.json", "part-2021278601.json"))
    write_files(tmp_path / "raw", files=2)
    write_tokenizer(tmp_path / "tok")
    first.write_text(
        first.read_text(encoding="utf-8").replace('"content":"第7条', '"content":7,"x":"', 1), encoding="utf-8"
    )
    site = ContainerSite.model_validate(folder_image)
    stores, runs = [], []
    for name in ("outside", "inside"):
        store, _, plan, _ = prepare(config_for(tmp_path, store=str(tmp_path / name)))
        batch = TaskBatch(store.uri, tuple(task.id for task in plan.tasks), str(tmp_path / "spool"), raw=plan.raw)
        parts = (replace(batch, tasks=batch.tasks[:-1]), replace(batch, tasks=batch.tasks[-1:]))
        boxed = [partial(ContainedBatch(part, site).run, tmp_path, "7_1") for part in parts]
        runs.append(boxed if name == "inside" else [part.run for part in parts])
        stores.append(store)
    assert [good() for good, _ in runs] == [{}, {}]
    assert contents(stores[0]) == contents(stores[1])
    [bad] = [data for key, data in contents(stores[1]).items() if key.startswith("quarantine/")]
    assert json.loads(bad)["detail"] == "the field 'content' is a number, not a string"
    assert json.loads(bad)["path"] == first.name
    second.write_bytes(second.read_bytes() + b" ")
    told, same = (changed() for _, changed in runs)
    assert told == same
    assert [second.name in failure.message and failure.final for failure in told.values()] == [True]
