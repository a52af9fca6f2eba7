"""The verbs know the stages of de-duplication: task, status, verify, repair."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lmbatch.cli import cli
from lmbatch.errors import UsageError
from lmbatch.preprocess import merge
from lmbatch.store import Store, open_store
from support.drive import contents, prepare, preprocess_here
from support.duplicates import dedup_config, write_duplicates
from support.wudao import write_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli-dedup")
    write_duplicates(folder / "raw", 15)
    write_tokenizer(folder / "tok")
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def settings(base: Path, name: str) -> dict[str, object]:
    return {"store": str(base / name), "tasks": {"bytes": 14_000}}


def test_task_by_task_through_all_stages(base: Path) -> None:
    config = dedup_config(base, {"near": {}}, **settings(base, "by-hand"))
    store, _, plan, _ = prepare(config)
    assert len(plan.tasks) == 3
    assert run("task", store.uri, "sign-000000", "sign-000001").exit_code == 0
    status = json.loads(run("status", store.uri, "--json").stdout)
    assert [(stage["name"], stage["tasks_done"], stage["tasks"]) for stage in status["stages"]] == [
        ("sign", 2, 3), ("compare", 0, 1), ("tokenize", 0, 3)
    ]  # fmt: skip
    assert "stages: sign 2 of 3, compare 0 of 1, tokenize 0 of 3" in run("status", store.uri).stdout
    early = run("task", store.uri, "compare-0000")
    assert early.exit_code != 0
    assert "sign-000002" in str(early.exception)
    assert run("task", store.uri, "sign-000002", "compare-0000").exit_code == 0
    assert run("task", store.uri, *(task.id for task in plan.tasks)).exit_code == 0
    merge(store, plan)
    quiet = dedup_config(base, {"near": {}}, **settings(base, "quiet"))
    preprocess_here(quiet)
    assert contents(store) == contents(open_store(quiet.store))


def test_a_task_that_is_not_there_is_answered_with_those_that_are(base: Path) -> None:
    config = dedup_config(base, {}, **settings(base, "unknown"))
    prepare(config)
    refused = run("task", config.store, "sign-000009")
    assert isinstance(refused.exception, UsageError)
    assert refused.exception.remedy == (
        "it has sign-000000 to sign-000002, compare-0000 to compare-0000, task-000000 to task-000002"
    )


def test_repair_does_a_damaged_signature_again(base: Path) -> None:
    config = dedup_config(base, {}, **settings(base, "damaged"))
    preprocess_here(config)
    store: Store = open_store(config.store)
    whole = contents(store)
    key = next(info.key for info in store.list("dedup/sign-000001"))
    store.put(key, b"\0" * len(store.read(key)))
    found = run("verify", store.uri)
    assert found.exit_code == 1
    assert "sign-000001: " in found.stdout
    mended = run("repair", store.uri, "--workers", "1", "--json")
    assert mended.exit_code == 0, mended.output
    assert json.loads(mended.stdout)["withdrawn"] == ["sign-000001"]
    assert contents(store) == whole
