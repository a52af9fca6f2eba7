"""The command prefix of each container runtime, as documented by each; golden."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lmbatch.config import ContainerSite
from lmbatch.config.load import build
from lmbatch.errors import ConfigError, ContainerError
from lmbatch.launch.container import (
    ContainerWork,
    cleaning_command,
    container_prefix,
    job_memory,
    keeper,
    mounts_of,
    removing_command,
)

TRAINING = ContainerWork(
    cwd=Path("/home/li/项目"), folders=(Path("/home/li/项目/runs/demo"), Path("/scratch/cache"), Path("/data/demo")),
    code=Path("/home/li/lmbatch/src"), gpus=8, user="1000:1001",
)  # fmt: skip
TASK = ContainerWork(cwd=Path("/home/li/jobs"), folders=(Path("/data/wudao"), Path("/data/out")), user="1000:1001")
MORE = {"mounts": ["/etc/pki:/etc/pki:ro"], "environment": ["MY_TOKEN"], "options": ["--more"]}


def site(runtime: str, image: str = "lmbatch:train", **more: object) -> ContainerSite:
    return ContainerSite.model_validate({"runtime": runtime, "image": image, **more})


def short(prefix: tuple[str, ...]) -> list[str]:
    """Without the long parts that other tests look at: the keeper, and the variables that go by name."""
    parts = ["KEEPER" if part == keeper() else part for part in prefix]
    return [part for part in parts if not part.startswith("--env=") or part.count("=") == 2]


def test_none_is_nothing() -> None:
    assert container_prefix(ContainerSite(), TRAINING) == ()


def test_pyxis_training_on_gpus() -> None:
    prefix = container_prefix(site("pyxis", "/img/train.sqsh", code=True, **MORE), TRAINING)
    assert [part for part in prefix if not part.startswith("--container-env=")] == [
        "--container-image=/img/train.sqsh",
        "--container-mounts=/data/demo:/data/demo,/home/li/lmbatch/src:/home/li/lmbatch/src,"
        "/home/li/项目:/home/li/项目,/scratch/cache:/scratch/cache,/etc/pki:/etc/pki:ro",
        "--container-workdir=/home/li/项目", "--no-container-mount-home", "--no-container-entrypoint",
        "--container-writable", "--more", "env", "--unset=PYTHONHOME", "--unset=VIRTUAL_ENV",
        "--unset=LD_LIBRARY_PATH", "--unset=LD_PRELOAD", "--unset=TMPDIR", "PYTHONNOUSERSITE=1",
        "PYTHONPATH=/home/li/lmbatch/src", "python",
    ]  # fmt: skip


def test_an_image_may_not_overrule_what_the_user_has_set() -> None:
    (names,) = (part for part in container_prefix(site("pyxis", **MORE), TASK) if part.startswith("--container-env="))
    assert {"OMP_NUM_THREADS", "HF_HOME", "AWS_ENDPOINT_URL", "MY_TOKEN"} <= set(names.partition("=")[2].split(","))


def test_apptainer_training_on_gpus() -> None:
    assert list(container_prefix(site("apptainer", "/img/train.sif", **MORE), TRAINING)) == [
        "apptainer", "exec", "--no-home", "--writable-tmpfs", "--nv", "--bind", "/data/demo:/data/demo", "--bind",
        "/home/li/项目:/home/li/项目", "--bind", "/scratch/cache:/scratch/cache", "--bind", "/etc/pki:/etc/pki:ro",
        "--pwd", "/home/li/项目", "--more",
        "/img/train.sif", "env", "--unset=PYTHONPATH", "--unset=PYTHONHOME", "--unset=VIRTUAL_ENV",
        "--unset=LD_PRELOAD", "--unset=TMPDIR", "PYTHONNOUSERSITE=1", "python",
    ]  # fmt: skip


def test_apptainer_task() -> None:
    assert list(container_prefix(site("apptainer", "/img/preprocess.sif", python="python3"), TASK))[:13] == [
        "apptainer", "exec", "--no-home", "--writable-tmpfs", "--bind", "/data/out:/data/out", "--bind",
        "/data/wudao:/data/wudao", "--bind", "/home/li/jobs:/home/li/jobs", "--pwd", "/home/li/jobs",
        "/img/preprocess.sif",
    ]  # fmt: skip


def test_charliecloud_training() -> None:
    work = replace(TRAINING, folders=(*TRAINING.folders, Path("/tmp/shared")))
    assert list(container_prefix(site("charliecloud", "/img/train", code=True), work)) == [
        "env", "--unset=TMPDIR", "ch-run", "--unset-env=PYTHONHOME", "--unset-env=VIRTUAL_ENV",
        "--unset-env=LD_LIBRARY_PATH", "--unset-env=LD_PRELOAD", "--unset-env=TMPDIR", "--set-env",
        "--set-env=PYTHONNOUSERSITE=1", "--set-env=PYTHONPATH=/home/li/lmbatch/src", "--bind=/data/demo:/data/demo",
        "--bind=/home/li/lmbatch/src:/home/li/lmbatch/src", "--bind=/home/li/项目:/home/li/项目",
        "--bind=/scratch/cache:/scratch/cache", "--cd=/home/li/项目", "/img/train", "--", "python",
    ]  # fmt: skip


def test_charliecloud_task_keeps_what_the_site_names() -> None:
    prefix = container_prefix(site("charliecloud", "/img/preprocess", environment=["PYTHONPATH", "TMPDIR"]), TASK)
    assert [part for part in prefix if "PYTHONPATH" in part or "unset-env=TMPDIR" in part] == []


ENGINE = [
    "--network=host", "--pid=host", "--ipc=host", "--user=1000:1001", "--entrypoint=", "--log-driver=none",
    "--security-opt=label=disable",
]  # fmt: skip


def test_podman_training_on_gpus() -> None:
    assert short(container_prefix(site("podman", **MORE), TRAINING)) == [
        "bash", "-c", "KEEPER", "lmbatch", "podman", *ENGINE, "--ulimit=host", "--device=nvidia.com/gpu=all",
        "--mount=type=bind,source=/data/demo,destination=/data/demo",
        "--mount=type=bind,source=/home/li/项目,destination=/home/li/项目",
        "--mount=type=bind,source=/scratch/cache,destination=/scratch/cache",
        "--mount=type=bind,source=/etc/pki,destination=/etc/pki,readonly",
        "--workdir=/home/li/项目", "--env=PYTHONNOUSERSITE=1", "--more", "lmbatch:train", "python",
    ]  # fmt: skip


def test_docker_task() -> None:
    assert short(container_prefix(site("docker", shm="1GiB"), TASK)) == [
        "bash", "-c", "KEEPER", "lmbatch", "docker", "--network=host", "--pid=host", "--shm-size=1073741824",
        "--user=1000:1001", "--entrypoint=", "--log-driver=none", "--security-opt=label=disable",
        "--mount=type=bind,source=/data/out,destination=/data/out",
        "--mount=type=bind,source=/data/wudao,destination=/data/wudao",
        "--mount=type=bind,source=/home/li/jobs,destination=/home/li/jobs",
        "--workdir=/home/li/jobs", "--env=PYTHONNOUSERSITE=1", "lmbatch:train", "python",
    ]  # fmt: skip


def test_docker_on_gpus_and_rootless_podman() -> None:
    assert "--gpus=all" in container_prefix(site("docker"), TRAINING)
    rootless = container_prefix(site("podman"), replace(TASK, rootless=True))
    assert "--userns=keep-id" in rootless
    assert not any(part.startswith("--user=") for part in rootless)


@pytest.mark.parametrize("runtime", ["podman", "docker"])
def test_an_engine_is_told_the_jobs_memory_as_its_container_is_none_of_the_jobs(runtime: str) -> None:
    limited = replace(TASK, memory=job_memory({"SLURM_MEM_PER_NODE": "500"}))
    assert "--memory=524288000" in container_prefix(site(runtime), limited)
    for unlimited in ({}, {"SLURM_MEM_PER_NODE": "0"}):
        prefix = container_prefix(site(runtime), replace(TASK, memory=job_memory(unlimited)))
        assert not any(part.startswith("--memory") for part in prefix)


def test_who_may_set_no_limit_asks_for_none() -> None:
    limited = replace(TASK, memory=2**30, rootless=True)
    assert not any(part.startswith("--memory") for part in container_prefix(site("podman"), limited))
    assert "--memory=1073741824" in container_prefix(site("docker"), limited)  # set by its service


def test_charliecloud_has_the_users_name_also_where_a_job_has_none() -> None:
    prefix = container_prefix(site("charliecloud", "/img/train"), replace(TRAINING, login="li"))
    assert prefix[:4] == ("env", "--unset=TMPDIR", "USER=li", "ch-run")


@pytest.mark.parametrize("runtime", ["pyxis", "apptainer", "charliecloud", "podman", "docker"])
def test_secrets_go_by_name_or_inheritance_and_never_by_value(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MY_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "do-not-tell")
    prefix = container_prefix(site(runtime, environment=["MY_TOKEN"]), TRAINING)
    assert "do-not-tell" not in " ".join(prefix)
    if runtime in ("podman", "docker"):  # which pass nothing by inheritance
        assert {"--env=AWS_SECRET_ACCESS_KEY", "--env=HF_TOKEN", "--env=MY_TOKEN", "--env=SLURM_PROCID",
                "--env=MASTER_PORT", "--env=SLURM_RESTART_COUNT"} <= set(prefix)  # fmt: skip


def test_a_folder_in_a_mounted_folder_is_mounted_once() -> None:
    work = replace(TASK, folders=(Path("/home/li/jobs/runs"), Path("/home/lin")))
    assert [str(mount.source) for mount in mounts_of(site("podman"), work)] == ["/home/li/jobs", "/home/lin"]


def test_only_what_leaves_containers_behind_is_cleaned_up() -> None:
    assert [bool(cleaning_command(site(name))) for name in ("pyxis", "apptainer", "charliecloud", "podman", "docker")] \
        == [False, False, False, True, True]  # fmt: skip


@pytest.mark.parametrize("bad", ["/a:b", "/a", "/a:/b:rw", "/a:/b,c", "a:/b"])
def test_mounts_that_are_none_are_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match="is not a mount"):
        build(ContainerSite, {"mounts": [bad]}, "site")


def test_a_path_that_cannot_be_mounted_is_refused() -> None:
    with pytest.raises(ContainerError, match="a colon or a comma"):
        container_prefix(site("podman"), replace(TASK, folders=(Path("/data/a,b"),)))


def test_a_value_in_place_of_a_name_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        build(ContainerSite, {"environment": ["TOKEN=do-not-tell"]}, "site")
    assert "TOKEN" in str(caught.value)
    assert "do-not-tell" not in str(caught.value)


def test_a_runtime_needs_an_image() -> None:
    with pytest.raises(ConfigError, match="needs `image`"):
        build(ContainerSite, {"runtime": "podman"}, "site")


# ── the keeper, with a stand-in for podman ───────────────────────────────────────────────────────────────────────────
# Its container is a process of its own that outlives the client, as a real one does. The first of each short command
# dies of the signal that Slurm sends to all; the second ends as podman does of a SIGTERM: well, and with nothing done.
PODMAN = """#!/bin/bash
cd "$(dirname "$0")"; echo "$@" >> asked
alive() {{ [ -e container ] && kill -0 "$(cat container)" 2>/dev/null; }}
case "$1" in inspect|kill|rm) [ -e "hit-$1" ] || {{ touch "hit-$1"; kill -KILL $$; }} ;; esac
case "$1" in inspect|rm) [ -e "hit-$1-softly" ] || {{ touch "hit-$1-softly"; exit 0; }} ;; esac
for there; do :; done
case "$1" in
ps) cat names; exit 0 ;;
inspect|rm)
  [[ $there == *-1-0-1 ]] || grep -q "$there" names || {{ echo "Error: No such container: x" >&2; exit 1; }} ;;
esac
case "$1" in
run)
  (trap 'touch told' USR2 TERM INT; {body}; echo 0 > code) & echo $! > container
  {client}
  wait; cat code >/dev/null; exit "$(cat code)" ;;
attach) while alive; do sleep 0.05; done; exit "$(cat code)" ;;
kill) alive && kill -s "$3" "$(cat container)" ;;
inspect)
  [ ! -e removed ] || {{ echo "Error: inspecting object: no such container x" >&2; exit 125; }}
  if alive; then echo running 0; else echo exited "$(cat code)"; fi ;;
rm)
  sed -i "/$there/d" names
  [[ $there != *-1-0-1 ]] || {{ ! alive || kill -KILL "$(cat container)"; touch removed; }} ;;
esac
"""


def kept(tmp_path: Path, body: str, client: str = "", left: str = "") -> tuple[int, list[str]]:
    """Run the keeper over a container that does ``body``; its exit code, and what was asked of the runtime.

    ``left`` names a container that an earlier attempt has left.
    """
    (tmp_path / "podman").write_text(PODMAN.format(body=body, client=client), encoding="utf-8")
    (tmp_path / "names").write_text(
        "".join(f"{name}\n" for name in (left, "lmbatch-7-1-0-2") if name), encoding="utf-8"
    )
    (tmp_path / "scontrol").write_text("#!/bin/bash\necho 'KillWait                = 3 sec'\n", encoding="utf-8")
    for name in ("podman", "scontrol"):
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", keeper(), "lmbatch", str(tmp_path / "podman"), "IMAGE", "python"], check=False, timeout=60,
        capture_output=True, text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_PROCID": "1", "SLURM_RESTART_COUNT": "1"},
    )  # fmt: skip
    assert (tmp_path / "removed").exists()
    assert (tmp_path / "names").read_text() == "lmbatch-7-1-0-2\n"  # of another rank of this attempt
    return done.returncode, (tmp_path / "asked").read_text(encoding="utf-8").splitlines()


def ends_with(code: int) -> str:
    return f"echo {code} > code; exit"


WAIT = "for _ in {1..200}; do [ ! -e told ] || break; sleep 0.05; done"


@pytest.mark.parametrize("code", [0, 1, 2, 75])
def test_the_exit_code_comes_back(tmp_path: Path, code: int) -> None:
    ended, asked = kept(tmp_path, ends_with(code))
    assert ended == code
    assert asked[0].startswith("ps --all --filter label=lmbatch.job=7 ")
    assert asked[1] == "run --sig-proxy=false --name lmbatch-7-1-0-1 --label lmbatch.job=7 IMAGE python"
    assert asked[-1] == "inspect --type container lmbatch-7-1-0-1"  # that it is gone, whatever `rm` ended with
    assert asked.count("rm --force lmbatch-7-1-0-1") == 3


def test_what_an_earlier_attempt_has_left_goes_first(tmp_path: Path) -> None:
    _, asked = kept(tmp_path, ends_with(0), left="lmbatch-7-0-0-1")
    assert asked.index("rm --force lmbatch-7-0-0-1") < [line.split()[0] for line in asked].index("run")


@pytest.mark.parametrize("runtime", ["podman", "docker"])
def test_a_removal_is_over_when_no_such_container_is_known(tmp_path: Path, runtime: str) -> None:
    """And not when a client that a signal hit says so, or one that found the mount busy has failed."""
    program = tmp_path / runtime
    program.write_text(
        '#!/bin/bash\ncd "$(dirname "$0")"; echo "$1" >> asked\ncase "$1" in\n'
        'inspect) [ -e gone ] && echo "Error: No such container: $4" >&2 && exit 1; echo "[]" ;;\n'
        "rm) case $(grep -c rm asked) in 1) exit 0 ;; 2) exit 125 ;; *) touch gone ;; esac ;;\nesac\n"
    )
    program.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    remove = removing_command(site(runtime), replace(TASK, name="lmbatch-7_1"))
    subprocess.run(remove, check=True, timeout=60, env=environ)
    assert (tmp_path / "asked").read_text().split() == ["inspect", "kill", "rm"] * 3 + ["inspect"]


def test_a_removal_in_vain_is_told(tmp_path: Path) -> None:
    program = tmp_path / "podman"
    program.write_text("#!/bin/sh\necho []\n")
    program.chmod(0o755)
    script = f"{keeper().partition('runtime=$1; shift')[0]}runtime=podman; remove lmbatch-7 1"
    told = subprocess.run(
        ["bash", "-c", script], check=False, capture_output=True, text=True, timeout=60,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    assert told.returncode == 1
    assert "lmbatch-7 cannot be removed from " in told.stderr
    assert "Remedy: podman rm --force lmbatch-7\n" in told.stderr


def test_a_client_that_a_signal_ends_after_its_container_changes_no_exit_code(tmp_path: Path) -> None:
    assert kept(tmp_path, ends_with(75), client="wait; kill -TERM $$")[0] == 75


@pytest.mark.parametrize("signal", ["USR2", "TERM", "INT"])
def test_notice_reaches_the_container_and_its_save_is_waited_for(tmp_path: Path, signal: str) -> None:
    """The client dies of the signal meanwhile: the exit code is the container's all the same."""
    body = f"{WAIT}; sleep 0.3; touch saved; {ends_with(75)}"
    code, asked = kept(tmp_path, body, client=f"sleep 0.2; kill -{signal} $PPID; kill -KILL $$")
    assert code == 75
    assert (tmp_path / "saved").exists()
    assert f"kill --signal {signal} lmbatch-7-1-0-1" in asked
    assert "attach --no-stdin --sig-proxy=false lmbatch-7-1-0-1" in asked


def test_the_container_goes_before_slurm_kills(tmp_path: Path) -> None:
    """A container that does not end after SIGTERM is removed 2 s before the SIGKILL."""
    code, asked = kept(
        tmp_path,
        "echo 137 > code; for _ in {1..300}; do sleep 0.05; done; touch survived",
        client="sleep 0.2; kill -TERM $PPID",
    )
    assert code == 137
    assert asked.index("kill --signal KILL lmbatch-7-1-0-1") < asked.index("rm --force lmbatch-7-1-0-1")
    assert not (tmp_path / "survived").exists()
