"""`lmbatch checkpoints` on a run folder, and on the copy of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lmbatch.checkpoint import Checkpoints, RunLock
from lmbatch.cli import cli
from lmbatch.errors import CheckpointError, RunBusyError, UsageError
from lmbatch.store import LocalStore, open_store
from lmbatch.train import train
from lmbatch.train.metrics import read_metrics, validation_losses
from support.tiny_corpus import write_corpus
from support.tiny_run import tiny_config


def checkpoints(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["checkpoints", *map(str, arguments)])


def listed(place: object) -> dict[int, dict]:
    done = checkpoints("list", place, "--json")
    assert done.exception is None, done.exception
    return {item["step"]: item for item in json.loads(done.stdout)}


def flip(folder: Path) -> None:
    weights = next(folder.rglob("model.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 30 steps with six checkpoints, and its copy in another folder."""
    folder = tmp_path_factory.mktemp("kept")
    save = {"every": 5, "keep": 6, "store": str(folder / "mirror")}
    settings = {"run": {"name": "one"}, "steps": 30, "evaluate": {"every": 10, "batches": 1}, "save": save}
    train(tiny_config(write_corpus(folder / "store"), folder, **settings))
    missing = {5, 10, 15, 20, 25, 30} - {item.step for item in Checkpoints(LocalStore(folder / "mirror/one")).list()}
    local = Checkpoints(LocalStore(folder / "one"), keep=6, mirror=LocalStore(folder / "mirror/one"))
    for step in sorted(missing):  # what came while another was being copied
        found = local.at(step)
        local.save(found.facts, lambda _: pytest.fail("it is there"))
        local.close()
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run folder to spoil; its config still names the mirror of the original."""
    shutil.copytree(made / "one", tmp_path / "one")
    return tmp_path / "one"


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "mirror/one", tmp_path / "mirror/one")
    return tmp_path / "mirror/one"


@pytest.mark.parametrize("place", ["one", "mirror/one"])
def test_list_says_what_is_kept_and_why(made: Path, place: str) -> None:
    found, losses = listed(made / place), validation_losses(read_metrics(made / "one"))
    assert list(found) == [5, 10, 15, 20, 25, 30]
    assert all(item["kept"] == ["newest"] and item["state"] == "committed" for item in found.values())
    assert {step: item["validation_loss"] for step, item in found.items() if step % 10 == 0} == losses
    assert found[5]["validation_loss"] is None
    assert f"{losses[20]:.4f}" in checkpoints("list", made / place).stdout


@pytest.mark.parametrize("place", ["run", "copy"])
def test_damage_is_listed_by_size_and_found_by_byte(place: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(place)
    flip(root / "checkpoints/step-00000010")
    next((root / "checkpoints/step-00000015").rglob("optimizer.safetensors")).unlink()
    found = listed(root)
    assert (found[10]["state"], found[15]["state"]) == ("committed", "damaged")
    assert "optimizer.safetensors: is missing" in found[15]["detail"]
    done = checkpoints("verify", root)
    assert done.exit_code == 1
    assert "step 5: right" in done.stdout
    assert "its bytes were changed" in done.stdout
    problems = json.loads(checkpoints("verify", root, "--json").stdout)["problems"]
    assert [step for step, lines in problems.items() if lines] == ["10", "15"]
    assert checkpoints("verify", root, "--step", 20).exit_code == 0
    assert checkpoints("verify", root, "--step", 21).exit_code == 1


@pytest.mark.parametrize("place", ["run", "copy"])
def test_prune_by_flags_and_nothing_else_goes(place: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(place)
    checkpoints("pin", root, "--step", 5, "--note", "论文")
    losses = validation_losses(read_metrics(root)) if place == "run" else {}
    flags = ["--keep", 2, "--keep-every", 20, "--keep-best", 1]
    plan = json.loads(checkpoints("prune", root, *flags, "--dry-run", "--json").stdout)
    assert len(listed(root)) == 6
    assert plan["deleted"] == [10, 15]
    assert plan["kept"] == {
        "5": ["pinned"], "20": ["every 20"], "25": ["newest"], "30": ["newest", "best 1"],
    }  # fmt: skip
    assert not losses or min(losses, key=losses.__getitem__) == 30
    assert json.loads(checkpoints("prune", root, *flags, "--json").stdout)["deleted"] == [10, 15]
    assert {step: item["pinned"] for step, item in listed(root).items()} == {5: True, 20: False, 25: False, 30: False}
    assert checkpoints("verify", root).exit_code == 0
    checkpoints("unpin", root, "--step", 5)
    assert "step 5: deleted" in checkpoints("prune", root, *flags).stdout
    assert not [path for path in (root / "checkpoints/step-00000005").rglob("*") if path.is_file()]


def test_prune_never_leaves_fewer_than_two_that_are_right(run: Path, copy: Path) -> None:
    flip(run / "checkpoints/step-00000030")
    flip(run / "checkpoints/step-00000025")
    assert json.loads(checkpoints("prune", run, "--keep", 2, "--json").stdout)["deleted"] == [5, 10]
    flip(copy / "checkpoints/step-00000030")
    assert json.loads(checkpoints("prune", copy, "--keep", 2, "--verify", "--json").stdout)["deleted"] == [5, 10, 15]
    assert checkpoints("prune", run, "--keep", 1).exit_code == 2


def test_prune_goes_by_the_config(run: Path, copy: Path) -> None:
    assert json.loads(checkpoints("prune", run, "--json").stdout)["deleted"] == []
    text = (run / "config.yaml").read_text(encoding="utf-8")
    (run / "config.yaml").write_text(text.replace("keep: 6", "keep: 3"), encoding="utf-8")
    assert json.loads(checkpoints("prune", run, "--json").stdout)["deleted"] == [5, 10, 15]
    (run / "config.yaml").unlink()
    assert isinstance(checkpoints("prune", run).exception, UsageError)
    assert json.loads(checkpoints("prune", copy, "--json").stdout)["deleted"] == []


def test_prune_waits_for_nobody_who_trains(run: Path) -> None:
    with RunLock(run):
        assert isinstance(checkpoints("prune", run, "--keep", 2).exception, RunBusyError)
        assert checkpoints("prune", run, "--keep", 2, "--dry-run").exit_code == 0
        assert len(listed(run)) == 6


def test_a_pin_is_put_on_the_copy_too(run: Path, copy: Path) -> None:
    text = (run / "config.yaml").read_text(encoding="utf-8")
    store = next(line for line in text.splitlines() if line.startswith("  store:") and line.endswith("/mirror"))
    (run / "config.yaml").write_text(text.replace(store, f"  store: {copy.parent}"), encoding="utf-8")
    done = checkpoints("pin", run, "--step", 10)
    assert done.stdout.count("pinned: step 10") == 2
    assert listed(run)[10]["pinned"]
    assert listed(copy)[10]["pinned"]
    assert checkpoints("unpin", run, "--step", 10).stdout.count("unpinned") == 2
    assert not listed(copy)[10]["pinned"]
    assert isinstance(checkpoints("pin", run, "--step", 11).exception, UsageError)


@pytest.mark.parametrize("place", ["run", "copy"])
def test_export_of_a_step(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    root = request.getfixturevalue(place)
    done = checkpoints("export", root, "--step", 10, "--out", tmp_path / "export")
    assert done.exception is None, done.exception
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in (tmp_path / "export").iterdir()}
    assert "10" in (tmp_path / "export/README.md").read_text(encoding="utf-8")
    assert not list(tmp_path.glob(".lmbatch-run-*"))
    flip(root / "checkpoints/step-00000020")
    done = checkpoints("export", root, "--step", 20, "--out", tmp_path / "damaged")
    assert isinstance(done.exception, CheckpointError)
    assert not (tmp_path / "damaged").exists()


def test_the_same_on_object_storage(made: Path, s3_uri: str, tmp_path: Path) -> None:
    store, uri = open_store(f"{s3_uri}/one"), f"{s3_uri}/one"
    for path in (made / "mirror/one").rglob("*"):
        if path.is_file():
            store.put_file(path.relative_to(made / "mirror/one").as_posix(), path)
    assert list(listed(uri)) == [5, 10, 15, 20, 25, 30]
    assert checkpoints("pin", uri, "--step", 5).exit_code == 0
    assert checkpoints("export", uri, "--step", 10, "--out", tmp_path / "export").exception is None
    assert json.loads(checkpoints("prune", uri, "--keep", 2, "--json").stdout)["deleted"] == [10, 15, 20]
    assert checkpoints("verify", uri).exit_code == 0
    assert {info.key.split("/")[1][-2:] for info in store.list("checkpoints/")} == {"05", "25", "30"}


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert isinstance(checkpoints("list", tmp_path / "none").exception, UsageError)
    assert isinstance(checkpoints("verify", tmp_path).exception, UsageError)
