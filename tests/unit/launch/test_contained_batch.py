"""A batch in a container, seen from both sides; here without a container, which tests/containers has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from lmbatch.cli.task import command
from lmbatch.config import ContainerSite, PreprocessConfig, SiteConfig
from lmbatch.errors import EXIT_REQUEUE, ContainerError, TaskError, UsageError
from lmbatch.launch import LocalBackend, place_of, run_preprocess
from lmbatch.launch.backend import TaskBatch, TaskFailure
from lmbatch.launch.batch_file import read_answer, read_batch, write_answer, write_batch
from lmbatch.launch.contained_batch import (
    ContainedBatch,
    contained,
    credential_folders,
    end_like,
    run_on_a_lifeline,
    task_command,
    work_of,
)
from lmbatch.launch.container import ContainerWork
from lmbatch.preprocess import load_plan, merge
from lmbatch.store import open_store
from support.drive import in_child, prepare, preprocess_here
from support.slurm_site import wait_until
from support.wudao import config_for, write_files, write_tokenizer

TOLD = ["-m", "lmbatch", "task", "--batch", "/jobs/7_1_batch.json", "--answer", "/jobs/7_1_answer.json", "--lifeline"]
WORK = ContainerWork(cwd=Path("/home/li"), folders=(Path("/data"),), user="1000:1000", name="lmbatch-7_1")
HELD = """
import signal, sys, time
from lmbatch.launch.lifeline import hold_lifeline
hold_lifeline(seconds=0.5)
try:
    print("up", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    if "deaf" in sys.argv:
        time.sleep(60)
    print("tidied up", flush=True)
"""


@pytest.fixture
def config(tmp_path: Path) -> PreprocessConfig:
    write_files(tmp_path / "raw", files=2)
    write_tokenizer(tmp_path / "tok")
    return config_for(tmp_path)


def site(runtime: str) -> ContainerSite:
    return ContainerSite.model_validate({"runtime": runtime, "image": "lmbatch:preprocess"})


# ── the files between them ───────────────────────────────────────────────────────────────────────────────────────────
def test_a_batch_and_its_answer_survive_the_files(tmp_path: Path) -> None:
    batch = TaskBatch("s3://bucket/悟道", ("task-000001",), "/spool", 7, "hf", 2.5, 30.0, "file:///原始")
    write_batch(tmp_path / "b.json", batch)
    assert read_batch(tmp_path / "b.json") == batch
    failures = {"task-000001": TaskFailure("part-1.json: byte 7: 不是 JSON", final=True)}
    assert read_answer(tmp_path / "a.json") is None
    write_answer(tmp_path / "a.json", failures)
    assert read_answer(tmp_path / "a.json") == failures
    assert "不是" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_a_batch_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    path.write_text(json.dumps({**asdict(TaskBatch("s", ("t",), "/x")), "novelty": 1}), encoding="utf-8")
    with pytest.raises(UsageError, match=r"(?s)b\.json.*novelty.*of one version"):
        read_batch(path)
    with pytest.raises(UsageError, match="must be mounted"):
        read_batch(tmp_path / "missing.json")


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_where_there_is_no_container_the_batch_is_called_itself() -> None:
    batch = TaskBatch("s", ("t",), "/x")
    assert contained(batch, None) is contained(batch, ContainerSite()) is batch
    assert isinstance(contained(batch, site("podman")), ContainedBatch)


def command_of(runtime: str) -> list[str]:
    return task_command(site(runtime), WORK, Path("/jobs/7_1_batch.json"), Path("/jobs/7_1_answer.json"), 4)


def test_pyxis_is_a_step_beside_submitits(monkeypatch: pytest.MonkeyPatch) -> None:
    found = command_of("pyxis")
    assert found[:7] == ["srun", "--overlap", "--nodes=1", "--ntasks=1", "--cpus-per-task=4", "--export=ALL",
                         "--disable-status"]  # fmt: skip
    assert "--container-image=lmbatch:preprocess" in found
    assert found[-9:] == ["python", *TOLD]


@pytest.mark.parametrize("runtime", ["podman", "docker"])
def test_an_engine_gets_standard_input_and_a_name_to_be_removed_by(runtime: str) -> None:
    assert command_of(runtime)[:5] == [runtime, "run", "--interactive", "--name=lmbatch-7_1", "--rm"]
    assert command_of(runtime)[-10:] == ["lmbatch:preprocess", "python", *TOLD]


@pytest.mark.parametrize("runtime", ["charliecloud", "apptainer"])
def test_the_others_become_the_process(runtime: str) -> None:
    assert "srun" not in command_of(runtime)
    assert command_of(runtime)[-9:] == ["python", *TOLD]


def test_tasks_get_their_store_and_input_if_they_are_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    jobs, spool = tmp_path / "jobs", tmp_path / "spool"
    work = work_of(f"file://{tmp_path}/out", f"{tmp_path}/原始", jobs, spool, "n")
    assert (work.folders, work.written) == ((tmp_path / "原始",), (jobs, spool, tmp_path / "out"))
    assert work_of("s3://bucket/out", "s3://bucket/raw", jobs, None).written == (jobs,)
    assert work_of("s3://bucket/out", "s3://bucket/raw", jobs, None).folders == ()


def test_a_profile_is_found_inside_although_home_is_another(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "AWS_PROFILE": "hpc"}
    assert credential_folders(environ) == []
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[hpc]\n", encoding="utf-8")
    assert credential_folders(environ) == [tmp_path / ".aws"]
    assert environ["AWS_SHARED_CREDENTIALS_FILE"] == str(tmp_path / ".aws" / "credentials")
    assert credential_folders({**environ, "AWS_ACCESS_KEY_ID": "key"}) == []
    assert "AWS_CONFIG_FILE" not in environ


def test_a_profile_is_there_only_where_s3_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("[default]\n", encoding="utf-8")
    assert work_of("/out", "/raw", tmp_path, None).folders == (Path("/raw"),)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / ".aws" / "config"))  # so that it is undone
    assert tmp_path / ".aws" in work_of("s3://bucket/out", "/raw", tmp_path, None).folders


def test_nothing_is_stored_where_the_container_cannot_run(config: PreprocessConfig, tmp_path: Path) -> None:
    image = {"runtime": "charliecloud", "image": str(tmp_path / "missing")}
    place = place_of(SiteConfig.model_validate({"name": "x", "container": image}))
    with pytest.raises(ContainerError):
        run_preprocess(config, place.backend, place=place)
    assert not list(open_store(config.store or "").list())


def test_the_answer_of_an_attempt_before_is_none_of_this_one(
    config: PreprocessConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A requeued element has the same name: what died without an answer must not be taken for done."""
    runtime = apptainer_here(tmp_path, monkeypatch, "exit 3")
    store, _, plan, _ = prepare(config)
    (tmp_path / "jobs" / "7").mkdir(parents=True)
    write_answer(tmp_path / "jobs" / "7" / "7_1_answer.json", {})
    batch = TaskBatch(store.uri, (plan.tasks[0].id,), str(tmp_path / "spool"), raw=plan.raw)
    with pytest.raises(SystemExit) as ended:
        ContainedBatch(batch, runtime).run(tmp_path / "jobs" / "7", "7_1")
    assert ended.value.code == 3
    assert not (tmp_path / "spool").exists()


def test_a_local_element_ends_with_its_controller(
    config: PreprocessConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever kills the controllers (SIGKILL) leaves nobody who would end what they have started."""
    runtime = apptainer_here(tmp_path, monkeypatch, f"echo $$ >{tmp_path}/pid; exec cat")
    store, _, plan, _ = prepare(config)
    backend = LocalBackend(tmp_path / "jobs", 1, runtime)
    backend.submit([TaskBatch(store.uri, (plan.tasks[0].id,), str(tmp_path / "spool"), raw=plan.raw)])
    wait_until(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))
    inside = psutil.Process(int((tmp_path / "pid").read_text()))
    controller = inside.parents()[1]
    assert os.getpid() == controller.ppid()
    controller.kill()
    wait_until(lambda: not inside.is_running() or inside.status() == psutil.STATUS_ZOMBIE, 60)
    backend.cancel()


def apptainer_here(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> ContainerSite:
    """A site whose apptainer does this, whatever it is asked for."""
    program = folder / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return ContainerSite(runtime="apptainer", image="oras://registry.example/lmbatch")


def test_a_node_that_lacks_what_is_to_be_mounted_says_so(
    config: PreprocessConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = apptainer_here(tmp_path, monkeypatch, "exit 3")
    store, _, plan, _ = prepare(config)
    batch = TaskBatch(store.uri, (plan.tasks[0].id,), str(tmp_path / "spool"), raw=str(tmp_path / "elsewhere"))
    with pytest.raises(ContainerError, match="elsewhere: is to be mounted into the container, and is not there on "):
        ContainedBatch(batch, runtime).run(tmp_path, "7_1")


def test_a_node_without_the_program_says_so(config: PreprocessConfig, tmp_path: Path) -> None:
    store, _, plan, _ = prepare(config)
    batch = TaskBatch(store.uri, (plan.tasks[0].id,), str(tmp_path / "spool"), raw=plan.raw)
    with pytest.raises(ContainerError, match=r"the program `apptainer` is not there on .*\n +remedy: install it"):
        ContainedBatch(batch, site("apptainer")).run(tmp_path, "7_1")


# ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_batch_form_does_what_the_file_says(config: PreprocessConfig, tmp_path: Path) -> None:
    quiet = preprocess_here(config.model_copy(update={"store": str(tmp_path / "quiet")}))
    store, _, plan, _ = prepare(config)
    write_batch(tmp_path / "b.json", TaskBatch(store.uri, tuple(task.id for task in plan.tasks), str(tmp_path / "own")))
    told = CliRunner().invoke(command, ["--batch", str(tmp_path / "b.json"), "--answer", str(tmp_path / "a.json")])
    assert told.exit_code == 0, told.output
    assert read_answer(tmp_path / "a.json") == {}
    assert merge(store, load_plan(store)) == quiet
    assert not (tmp_path / "own").exists()


def test_a_failed_task_is_answered_word_for_word(config: PreprocessConfig, tmp_path: Path) -> None:
    store, _, plan, _ = prepare(config)
    (tmp_path / "raw" / plan.files[1].path).unlink()
    batch = TaskBatch(store.uri, tuple(task.id for task in plan.tasks), str(tmp_path / "own"))
    write_batch(tmp_path / "b.json", batch)
    told = CliRunner().invoke(command, ["--batch", str(tmp_path / "b.json"), "--answer", str(tmp_path / "a.json")])
    assert isinstance(told.exception, TaskError)
    assert read_answer(tmp_path / "a.json") == batch.run() != {}


def test_a_batch_that_cannot_begin_says_why(tmp_path: Path) -> None:
    write_batch(tmp_path / "b.json", TaskBatch(str(tmp_path / "nothing"), ("task-000000",), str(tmp_path / "own")))
    CliRunner().invoke(command, ["--batch", str(tmp_path / "b.json"), "--answer", str(tmp_path / "a.json")])
    with pytest.raises(TaskError, match="nothing"):
        read_answer(tmp_path / "a.json")


@pytest.mark.parametrize("words", [[], ["--batch", "b.json", "store"], ["store"], ["store", "t", "--answer", "a.json"]])
def test_one_form_or_the_other(words: list[str]) -> None:
    assert isinstance(CliRunner().invoke(command, words).exception, UsageError)


# ── the lifeline ─────────────────────────────────────────────────────────────────────────────────────────────────────
def holding(*words: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    return process


def test_slurms_signals_pass_by_and_the_end_of_standard_input_ends_it() -> None:
    process = holding()
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGCONT):
        process.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == ("tidied up\n", 0)


def test_what_does_not_end_in_time_is_ended() -> None:
    process = holding("deaf")
    process.communicate(timeout=60)
    assert process.returncode == EXIT_REQUEUE


def test_a_killed_element_leaves_no_process_inside() -> None:
    run = f"run_on_a_lifeline([sys.executable, '-c', {HELD!r}])"
    outer = f"import sys\nfrom lmbatch.launch.contained_batch import run_on_a_lifeline\n{run}"
    process = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    [inner] = psutil.Process(process.pid).children()
    process.kill()
    assert process.stdout.readline() == "tidied up\n"  # standard output is the same for both
    psutil.wait_procs([inner], timeout=60)
    assert not inner.is_running() or inner.status() == psutil.STATUS_ZOMBIE
    process.communicate()


def test_a_signal_in_the_moment_of_starting_is_for_the_element_alone() -> None:
    """The program must not die of it before it has said that it leaves it alone."""
    seen = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: seen.append(number))
    try:
        bare = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); os.kill(os.getpid(), signal.SIGTERM)"
        assert run_on_a_lifeline([sys.executable, "-c", bare]) == 0
        os.kill(os.getpid(), signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert seen == [signal.SIGUSR2]


# ── how an element ends ──────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("code", "same"), [(-9, -9), (137, -9), (125, 125), (1, 1), (-15, 143)])
def test_an_element_ends_as_its_work_did(code: int, same: int) -> None:
    def ends() -> None:
        try:
            end_like(code)
        except SystemExit as error:
            os._exit(error.code)  # type: ignore[arg-type]

    assert in_child(ends) == same


def test_no_answer_of_a_command_that_ended_well_is_an_error() -> None:
    with pytest.raises(TaskError, match="no answer"):
        end_like(0)
