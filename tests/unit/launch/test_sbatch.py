"""The batch script of a training job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lmbatch.config import TrainSite
from lmbatch.launch.sbatch import training_script
from lmbatch.train.slurm import rendezvous_port
from support.tiny_run import tiny_settings, write_config

ROOT = Path(__file__).resolve().parents[3]


def script(**site: object) -> str:
    return training_script(TrainSite.model_validate(site), name="trial", config="my config.yaml")


def test_the_script_in_the_repository_is_the_one_that_is_rendered() -> None:
    rendered = training_script(TrainSite(), name="gpt2_zh", config="configs/train/gpt2_zh.yaml")
    assert (ROOT / "slurm" / "train_gpt2_zh.sbatch").read_text(encoding="utf-8") == rendered


def test_what_the_site_says_is_asked_for() -> None:
    lines = script(
        partition="gpu", account="nlp", exclude="node17", nodes=4, processes_per_node=8, gpus_per_node=8,
        memory="200GiB", notice_seconds=300, options={"exclusive": True, "nice": "10", "overcommit": False},
        setup=["module load cuda"], python="/opt/py/bin/python",
    ).splitlines()  # fmt: skip
    asked = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert {
        "partition=gpu", "account=nlp", "exclude=node17", "nodes=4", "ntasks-per-node=8", "gpus-per-node=8",
        "mem=204800M", "signal=B:USR2@300", "exclusive", "nice=10", "requeue", "open-mode=append",
    } <= asked  # fmt: skip
    assert not any("overcommit" in option or "qos" in option for option in asked)
    assert "module load cuda" in lines
    assert "config='my config.yaml'" in lines


@pytest.mark.parametrize("restarts", ["", "3", "17"])
def test_bash_and_python_agree_on_the_port(restarts: str) -> None:
    lines = [line for line in script().splitlines() if line.startswith("MASTER_PORT=$((12000")]
    environ = {"SLURM_JOB_ID": "3297642", **({"SLURM_RESTART_COUNT": restarts} if restarts else {})}
    done = subprocess.run(
        ["bash", "-c", f"{lines[0]}; echo $MASTER_PORT"], env=environ, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == rendezvous_port(environ)


# Names the bad nodes in the file beside it, as the judge of the pre-flight check does; gives the container's words.
JUDGE = """case "$*" in *launch.host*) cat words; exit ;; esac
bad=$(cat bad 2>/dev/null); printf %s "$bad"; [ -z "$bad" ]"""


def run_with(
    tmp_path: Path, srun: str, *, scontrol: str = "", python: str = "", **environ: str
) -> tuple[int, str, list[str]]:
    """Run the script with stand-ins for Slurm's commands; its exit code, its output, and what was asked of Slurm."""
    bin_folder, requeued = tmp_path / "bin", tmp_path / "requeued"
    bin_folder.mkdir()
    for name, body in (
        ("srun", srun),
        ("scontrol", f'echo "$@" >> {requeued}\n{scontrol}'),
        ("sbatch", f'echo "sbatch $@" >> {requeued}'),
        ("python", python or JUDGE),
    ):
        (bin_folder / name).write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        (bin_folder / name).chmod(0o755)
    process = subprocess.Popen(
        ["bash", "-s", "--", "--set", "steps=5"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={"PATH": f"{bin_folder}:/usr/bin:/bin", "SLURM_JOB_ID": "12", "LMBATCH_PREFLIGHT": "no",
             "SLURM_JOB_PARTITION": "gpu", "SLURM_JOB_NUM_NODES": "2", **environ},
        cwd=tmp_path,
    )  # fmt: skip
    output, _ = process.communicate(script(), timeout=60)
    return process.returncode, output, requeued.read_text().splitlines() if requeued.exists() else []


@pytest.mark.parametrize(("code", "requeued"), [(0, []), (1, []), (2, []), (75, ["requeue 12"]), (143, [])])
def test_only_a_saved_stop_is_requeued(tmp_path: Path, code: int, requeued: list[str]) -> None:
    assert run_with(tmp_path, f"exit {code}")[::2] == (code, requeued)


def test_a_controller_that_is_away_is_asked_again(tmp_path: Path) -> None:
    once = "mkdir asked 2>/dev/null && exit 1; exit 0"
    assert run_with(tmp_path, "exit 75", scontrol=once)[::2] == (75, ["requeue 12"] * 2)


def test_notice_is_passed_on_and_waited_for(tmp_path: Path) -> None:
    """The step saves for a while after the notice, and a second notice does not end the wait either."""
    step = "trap 'seen=1' USR2; kill -USR2 $PPID; while [ -z \"${seen:-}\" ]; do sleep 0.05; done; kill -USR2 $PPID; " \
           "sleep 0.3; touch saved; exit 75"  # fmt: skip
    code, output, requeued = run_with(tmp_path, step)
    assert (code, requeued) == (75, ["requeue 12"])
    assert (tmp_path / "saved").exists()
    assert "job 12, attempt 0: exit code 75, after notice" in output


def test_a_step_that_the_notice_killed_while_it_started_is_requeued(tmp_path: Path) -> None:
    code, _, requeued = run_with(tmp_path, "kill -USR2 $PPID; sleep 5")
    assert (code, requeued) == (140, ["requeue 12"])


def test_a_job_that_ends_well_in_spite_of_the_notice_is_done(tmp_path: Path) -> None:
    step = "trap : USR2; kill -USR2 $PPID; sleep 0.3; exit 0"
    assert run_with(tmp_path, step)[::2] == (0, [])


def test_arguments_reach_training_and_cpu_is_chosen_only_without_gpus(tmp_path: Path) -> None:
    _, output, _ = run_with(tmp_path, 'echo "cpu=$ACCELERATE_USE_CPU"; printf "<%s>" "$@"')
    assert "cpu=true" in output
    assert (
        "<--label><--kill-on-bad-exit=1><python><-m><lmbatch.train><--config><my config.yaml><--set><steps=5>" in output
    )


def test_good_nodes_go_on_to_training(tmp_path: Path) -> None:
    code, output, asked = run_with(tmp_path, 'echo "$*"', LMBATCH_PREFLIGHT="yes")
    assert (code, asked) == (0, [])
    first, second, _ = output.splitlines()
    assert first == "python -m lmbatch.train.preflight --config my config.yaml --set steps=5"
    assert "lmbatch.train --config my config.yaml --set steps=5" in second


def test_a_bad_node_is_kept_away_from_by_a_new_job(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("n7")
    code, _, asked = run_with(tmp_path, "exit 1", LMBATCH_PREFLIGHT="yes", LMBATCH_EXCLUDED="n3")
    assert code == 1
    assert len(asked) == 1
    assert asked[0].startswith("sbatch --partition=gpu --nodes=2 --exclude=n3,n7 ")
    assert asked[0].endswith("--set steps=5")


def test_after_four_bad_nodes_no_job_follows(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("n7")
    code, _, asked = run_with(tmp_path, "exit 1", LMBATCH_PREFLIGHT="yes", LMBATCH_EXCLUDED="n1,n2,n3,n4")
    assert (code, asked) == (1, [])


def test_notice_during_the_check_requeues_without_training(tmp_path: Path) -> None:
    step = 'case "$*" in *preflight*) kill -USR2 $PPID; sleep 0.2 ;; *) touch trained ;; esac'
    code, _, asked = run_with(tmp_path, step, LMBATCH_PREFLIGHT="yes")
    assert (code, asked) == (75, ["requeue 12"])
    assert not (tmp_path / "trained").exists()


CONTAINED = "\0".join(("run:ch-run", "run:my image", "run:--", "run:python3", "clean:rm", "check:look-at-node", ""))


def test_in_the_container_of_a_site(tmp_path: Path) -> None:
    """The node is looked at from outside, and only what Slurm does not need to talk to runs inside."""
    (tmp_path / "words").write_text(CONTAINED, encoding="utf-8")
    asked = {"LMBATCH_PREFLIGHT": "yes", "LMBATCH_SITE": "site.yaml"}
    code, output, _ = run_with(tmp_path, 'printf "<%s>" "$@"; echo', **asked)
    look, preflight, train, _ = output.splitlines()
    assert code == 0
    assert look == "<--ntasks-per-node=1><look-at-node>"
    assert preflight.startswith("<ch-run><my image><--><python3><-m><lmbatch.train.preflight>")
    assert train.startswith("<--label><--kill-on-bad-exit=1><ch-run><my image><--><python3><-m><lmbatch.train>")


@pytest.mark.parametrize(("code", "cleaned"), [(0, False), (75, False), (1, True), (137, True)])
def test_what_a_step_leaves_is_removed(tmp_path: Path, code: int, cleaned: bool) -> None:
    (tmp_path / "words").write_text(CONTAINED, encoding="utf-8")
    step = f'case "$*" in *" rm") touch cleaned ;; *) exit {code} ;; esac'
    assert run_with(tmp_path, step, LMBATCH_SITE="site.yaml")[0] == code
    assert (tmp_path / "cleaned").exists() == cleaned


def test_the_shell_parses_no_word_of_a_container(tmp_path: Path) -> None:
    """The real module on a site whose paths are as bad as a shell could wish."""
    place = tmp_path / """it's "my" $(touch x) `touch y` *; touch z\n&"""
    for folder in ("store", "image/ch"):
        (place / folder).mkdir(parents=True)
    (place / "image/ch/environment").touch()
    container = {"runtime": "charliecloud", "image": str(place / "image"), "mounts": [f"{place}:/$(touch u)"]}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({"name": "s", "container": container}), encoding="utf-8")
    write_config(tmp_path / "my config.yaml", tiny_settings(str(place / "store"), place / "my runs"))
    asked = {"LMBATCH_SITE": "site.yaml", "HOME": str(place / "home"), "PYTHONPATH": str(ROOT / "src")}
    code, output, _ = run_with(tmp_path, 'printf "%s\\0" "$@"', python=f'exec {sys.executable} "$@"', **asked)
    words = output.split("\0")
    assert code == 0
    assert {f"--bind={place}:/$(touch u)", str(place / "image")} <= set(words)
    assert words[words.index("--") + 1 :][:3] == ["python", "-m", "lmbatch.train"]
    assert not set("uxyz") & {path.name for path in tmp_path.rglob("*")}


def test_a_container_that_cannot_be_had_ends_the_job(tmp_path: Path) -> None:
    code, _, asked = run_with(tmp_path, "touch trained", LMBATCH_SITE="site.yaml")  # no words: the module failed
    assert (code, asked) == (2, [])
    assert not (tmp_path / "trained").exists()


def test_notice_while_the_container_is_looked_for_requeues(tmp_path: Path) -> None:
    (tmp_path / "words").write_text(CONTAINED, encoding="utf-8")
    body = JUDGE.replace("cat words", "kill -USR2 $PPID; sleep 0.2; cat words")
    code, _, asked = run_with(tmp_path, "touch trained", python=body, LMBATCH_SITE="site.yaml")
    assert (code, asked) == (75, ["requeue 12"])
    assert not (tmp_path / "trained").exists()
