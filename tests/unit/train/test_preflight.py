"""Which nodes are unfit, and why."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lmbatch.train import preflight
from lmbatch.train.preflight import NodeReport, folder_of, judge, look, main, read_reports, to_avoid
from support.tiny_corpus import write_corpus
from support.tiny_run import tiny_config, tiny_settings, write_config

GOOD = NodeReport("n1", 0, 1e9, "cpu", {"python": "3.11.7", "torch": "2.13.0"}, ())
MEETING = "meeting the other processes: timed out"


def test_good_nodes_are_left_alone() -> None:
    assert judge([GOOD, replace(GOOD, node="n2", rank=1, clock=1e9 + 30)], ["n1", "n2"]) == {}


def test_a_node_that_says_nothing_is_bad() -> None:
    assert judge([GOOD], ["n1", "n2"]) == {"n2": ["it said nothing"]}
    assert judge([], ["n1"]) == {"n1": ["it said nothing"]}


def test_other_versions_than_the_majoritys_are_named() -> None:
    other = replace(GOOD, node="n3", rank=2, versions={"python": "3.11.7", "torch": "2.1.0"})
    found = judge([GOOD, replace(GOOD, node="n2", rank=1), other], ["n1", "n2", "n3"])
    assert found == {"n3": ["versions differ from the majority's: torch 2.1.0 instead of 2.13.0"]}


def test_what_is_wrong_everywhere_excludes_no_node() -> None:
    assert to_avoid({"n1": ["full"]}, ["n1", "n2"]) == ["n1"]
    assert to_avoid({"n1": ["full"], "n2": ["full"]}, ["n1", "n2"]) == []
    assert to_avoid({"n1": [MEETING], "n2": [MEETING]}, ["n1", "n2"]) == ["n1", "n2"]
    assert to_avoid({"n1": ["full"]}, ["n1"]) == ["n1"]  # another may be better


def test_a_clock_that_is_off_is_named() -> None:
    late = replace(GOOD, node="n3", rank=2, clock=1e9 - 3600)
    assert judge([GOOD, replace(GOOD, node="n2", rank=1), late], []) == {"n3": ["its clock is -3600 s off"]}


def test_who_waited_in_vain_is_not_to_blame() -> None:
    waited = replace(GOOD, problems=(MEETING,))
    broken = replace(GOOD, node="n2", rank=1, problems=("device: GPUs were asked for, and torch sees none", MEETING))
    assert judge([waited, broken], ["n1", "n2"]) == {"n2": [broken.problems[0]]}
    assert judge([waited], ["n1", "n2"]) == {"n2": ["it said nothing"]}
    assert set(judge([waited, replace(waited, node="n2", rank=1)], ["n1", "n2"])) == {"n1", "n2"}


def test_several_processes_of_a_node_say_the_same_once() -> None:
    full = replace(GOOD, problems=("run folder: 3 MiB are free",))
    assert judge([full, replace(full, rank=1)], ["n1"]) == {"n1": ["run folder: 3 MiB are free"]}


def test_a_look_at_this_machine(tmp_path: Path) -> None:
    config = tiny_config(write_corpus(tmp_path / "corpus"), tmp_path / "runs", save={"store": str(tmp_path / "kept")})
    report = look(config, {"SLURMD_NODENAME": "n9", "ACCELERATE_USE_CPU": "true"})
    assert (report.node, report.rank, report.problems) == ("n9", 0, ())
    assert abs(report.clock - time.time()) < 60
    assert report.versions["torch"]
    assert not list((tmp_path / "kept").iterdir())


def test_every_problem_is_told_not_only_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").write_text("a file where the run folder should be")
    config = tiny_config(str(tmp_path / "nowhere"), tmp_path / "runs")
    monkeypatch.setattr(preflight, "_LEAST_MEMORY", 2**60)
    report = look(config, {"SLURM_GPUS_ON_NODE": "4"})
    names = [problem.partition(":")[0] for problem in report.problems]
    assert names == ["memory", "run folder", "store of the data", "device"]


def test_look_then_judge_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tiny_settings(write_corpus(tmp_path / "corpus"), tmp_path / "runs")
    config = str(write_config(tmp_path / "c.yaml", settings))
    for name, value in {"SLURM_JOB_ID": "5", "SLURM_JOB_NODELIST": "n[1-2]", "SLURMD_NODENAME": "n1"}.items():
        monkeypatch.setenv(name, value)
    assert main(["--config", config]) == 0
    assert main(["--config", config, "--judge"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("n2", "bad node n2: it said nothing\n")
    folder = folder_of(tiny_config(settings["data"]["store"], tmp_path / "runs"), {"SLURM_JOB_ID": "5"})
    (report,) = read_reports(folder)
    assert report == NodeReport(**{**json.loads((folder / "rank-0.json").read_text()), "problems": ()})


def test_a_host_whose_container_cannot_start_is_named_without_a_version() -> None:
    host = NodeReport("n2", -2, 1e9, "", {}, ("container: ch-run is not there",))
    assert judge([GOOD, host], ["n1", "n2"]) == {"n2": ["container: ch-run is not there"]}


def test_an_image_with_another_lmbatch_excludes_no_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every node would be excluded in turn, and none is to blame."""
    config = write_config(tmp_path / "c.yaml", tiny_settings("store", tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n1")
    report = replace(GOOD, versions={**GOOD.versions, "lmbatch": "9.8.7"})
    preflight.write_report(tmp_path / "tiny" / "preflight" / "12-0", report)
    assert main(["--config", str(config), "--judge"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert f"the processes run lmbatch 9.8.7, and the host lmbatch {preflight.__version__}" in told.err
