"""The verbs of preprocessing, called as a user calls them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lmbatch import __version__
from support.wudao import config_for, write_files, write_tokenizer

ROOT = Path(__file__).resolve().parents[3]


def lmbatch(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lmbatch", *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_files(folder / "raw")
    write_tokenizer(folder / "tok")
    settings = config_for(folder).model_dump(mode="json")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def done(base: Path) -> subprocess.CompletedProcess[str]:
    return lmbatch("preprocess", "--config", str(base / "config.yaml"))


def test_preprocess_ends_with_the_manifest_and_its_digest(base: Path, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    uri = (base / "store").as_uri()
    assert re.fullmatch(
        rf"manifest: {re.escape(uri)}/manifest\.json digest: sha256:[0-9a-f]{{64}}", done.stdout.splitlines()[-1]
    )
    assert "120 in = 120 documents" in done.stdout
    assert done.stderr == ""  # quiet where there is no terminal


def test_again_does_nothing_and_says_the_same(base: Path, done: subprocess.CompletedProcess[str]) -> None:
    again = lmbatch("preprocess", "--config", str(base / "config.yaml"), "--json")
    facts = json.loads(again.stdout)
    assert facts["tasks_done_now"] == 0
    assert done.stdout.splitlines()[-1].endswith(facts["digest"])


def test_verify_status_and_plan(base: Path, done: subprocess.CompletedProcess[str]) -> None:
    digest = done.stdout.split()[-1]
    store = str(base / "store")
    verified = lmbatch("verify", store)
    assert verified.returncode == 0
    assert verified.stdout.startswith("right:")
    assert verified.stdout.strip().endswith(digest)
    assert json.loads(lmbatch("verify", store, "--json").stdout)["right"] is True
    status = json.loads(lmbatch("status", store, "--json").stdout)
    assert status["tasks_done"] == status["tasks"] > 5
    assert status["digest"] == digest
    plan = json.loads(lmbatch("plan", "preprocess", "--config", str(base / "config.yaml"), "--json").stdout)
    assert plan["tasks"] == status["tasks"]
    assert "120 records = 120 documents" in lmbatch("status", store).stdout


def test_a_flipped_byte_is_found_with_exit_code_1_and_repaired(base: Path) -> None:
    store = base / "flipped"
    config = ["--config", str(base / "config.yaml"), "--store", str(store)]
    first = lmbatch("preprocess", *config)
    victim = next((store / "shards/train").glob("*.bin"))
    data = bytearray(victim.read_bytes())
    data[7] ^= 1
    victim.write_bytes(data)
    found = lmbatch("verify", str(store))
    assert found.returncode == 1
    assert victim.name in found.stdout
    assert "lmbatch repair" in found.stdout
    dry = lmbatch("repair", str(store), "--dry-run")
    assert dry.returncode == 1
    repaired = lmbatch("repair", str(store))
    assert repaired.returncode == 0, repaired.stderr
    assert "done again: 1 tasks" in repaired.stdout
    assert lmbatch("verify", str(store)).stdout.strip().split()[-1] == first.stdout.split()[-1]


@pytest.mark.parametrize("missing", ["raw", "tok"])
def test_repair_withdraws_nothing_that_it_cannot_make_again(base: Path, tmp_path: Path, missing: str) -> None:
    store = tmp_path / "store"
    lmbatch("preprocess", "--config", str(base / "config.yaml"), "--store", str(store))
    next((store / "shards/train").glob("*.bin")).write_bytes(b"damaged")
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    option = {"raw": "--raw", "tok": "--tokenizer"}[missing]
    refused = lmbatch("repair", str(store), option, str(tmp_path / "nowhere"))
    assert refused.returncode != 0
    assert "nowhere" in refused.stderr
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_a_folder_whose_name_yaml_would_read_otherwise(base: Path, tmp_path: Path) -> None:
    """A folder called `it's: 1e5` stays a name, in every verb that takes --raw."""
    raw = tmp_path / "it's: 1e5"
    shutil.copytree(base / "raw", raw)
    config = ["--config", str(base / "config.yaml"), "--raw", str(raw)]
    assert lmbatch("plan", "preprocess", *config).returncode == 0
    settings = {"vocab_size": 300, "corpus": str(base / "config.yaml"), "out": str(tmp_path / "out")}
    (tmp_path / "tokenizer.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    trained = lmbatch("tokenizer", "train", "--config", str(tmp_path / "tokenizer.yaml"), "--raw", str(raw))
    assert trained.returncode == 0, trained.stderr


def test_a_single_task_by_hand(base: Path) -> None:
    config = ["--config", str(base / "config.yaml"), "--store", str(base / "by-hand")]
    lmbatch("preprocess", *config)
    (base / "by-hand/receipts/task-000001.json").unlink()
    done = lmbatch("task", str(base / "by-hand"), "task-000001", "task-000002")
    assert done.returncode == 0, done.stderr
    assert (base / "by-hand/receipts/task-000001.json").is_file()
    unknown = lmbatch("task", str(base / "by-hand"), "task-999999")
    assert unknown.returncode == 2
    assert "has no task task-999999" in unknown.stderr


def test_wudao_without_data_says_where_to_put_it_and_how_to_get_it(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tok")
    config = str(ROOT / "configs/corpora/wudao.yaml")
    done = lmbatch("preprocess", "--config", config, "--tokenizer", str(tmp_path / "tok"), cwd=tmp_path)
    assert done.returncode == 2
    assert "no input files" in done.stderr
    assert "data/raw/wudao" in done.stderr
    assert "RAW=" in done.stderr
    assert "https://" in done.stderr
    assert "Traceback" not in done.stderr


def test_wudao_without_data_speaks_of_the_data_before_the_tokenizer(tmp_path: Path) -> None:
    done = lmbatch("preprocess", "--config", str(ROOT / "configs/corpora/wudao.yaml"), cwd=tmp_path)
    assert done.returncode == 2
    assert "no input files" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["preprocess", "--config", "nowhere.yaml"], 2, "no such config file"),
        (["preprocess", "--config", "configs/corpora/demo.yaml", "--set", "corpus.nam=x"], 2, "did you mean `name`?"),
        (["preprocess", "--config", "configs/corpora/demo.yaml", "--tokenizer", "/no/such"], 2, "no input files"),
        (["verify", "/no/such/store"], 1, "plan.json"),
        (["nonsense"], 2, "No such command"),
        (["preprocess"], 2, "Missing option '--config'"),
    ],
)
def test_errors_are_one_message_with_the_documented_exit_code(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    arguments = [str(ROOT / item) if item.startswith("configs/") else item for item in arguments]
    done = lmbatch(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_version_and_help() -> None:
    assert __version__ in lmbatch("--version").stdout
    assert "preprocess" in lmbatch("--help").stdout
    assert "Examples" in lmbatch("preprocess", "--help").stdout


def test_config_show_and_doctor(base: Path) -> None:
    shown = json.loads(lmbatch("config", "show", str(base / "config.yaml"), "--kind", "preprocess", "--json").stdout)
    assert shown["config"]["tasks"]["bytes"] == 6000
    doctor = lmbatch("doctor", "--store", str(base / "doctor"), "--json")
    assert doctor.returncode == 0, doctor.stdout
    assert {"torch", "cores", "memory"} <= {row["what"] for row in json.loads(doctor.stdout)}
