"""`lmbatch doctor --imports`: what an installation should be able to import."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

from lmbatch.cli import cli
from lmbatch.cli.imports import check_imports, expected, extras_in_use, parse_requirements

LINES = (
    "click>=8.2", 'obstore>=0.12; extra == "s3"', 'torch>=2.6; extra == "train"', 'Py_Yaml>=6 ; extra == "train"',
    'lmbatch[s3,train]; extra == "image-train"', 'lmbatch[image-train]; extra == "all"', 'ruff>=0.1; extra == "dev"',
)  # fmt: skip


def rows(purpose: str) -> dict[str, tuple[bool, str]]:
    return {what: (right, found) for what, right, found in check_imports(purpose)}


def test_an_extra_may_stand_for_others() -> None:
    wanted = expected(parse_requirements(LINES), ["all"])
    assert wanted == {"click": "", "obstore": "s3", "torch": "train", "py-yaml": "train"}
    assert expected(parse_requirements(LINES), []) == {"click": ""}


def test_what_is_in_use() -> None:
    versions = {"click": "8.2", "torch": "2.13", "ruff": "1"}
    assert extras_in_use(parse_requirements(LINES), versions) == ("train",)


@pytest.fixture
def requires(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the metadata of lmbatch say."""
    lines = ["click>=8.2", "pyyaml>=6"]
    monkeypatch.setattr(metadata, "requires", lambda _: lines)
    return lines


def test_all_is_well(requires: list[str]) -> None:
    requires += ['orjson>=3; extra == "image-preprocess"']
    found = rows("preprocess")
    assert set(found) == {"click", "pyyaml", "orjson", "modules of lmbatch"}
    assert found["pyyaml"] == (True, metadata.version("pyyaml"))


def test_a_package_that_is_not_there(requires: list[str]) -> None:
    requires += ['no-such-thing>=1; extra == "zh"', 'lmbatch[zh]; extra == "image-serve"']
    assert rows("serve")["no-such-thing"] == (False, "not installed: pip install 'lmbatch[zh]'")


def test_a_package_that_cannot_be_imported(
    requires: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requires += ['broken-thing; extra == "image-train"']
    info = tmp_path / "broken_thing-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-thing\nVersion: 1.2\n", encoding="utf-8")
    (info / "RECORD").write_text("broken_thing.py,,\n", encoding="utf-8")
    (tmp_path / "broken_thing.py").write_text("raise OSError('libcudart.so.12: cannot open')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    right, found = rows("train")["broken-thing"]
    assert not right
    assert "OSError: libcudart.so.12" in found
    assert "pip install 'lmbatch[image-train]'" in found


def test_what_an_import_says_is_no_answer(requires: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requires += ['click; extra == "image-train"']
    (tmp_path / "click_talks.py").write_text("print('a warning')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("lmbatch.cli.imports._top_levels", lambda: {"click": ("click_talks",)})
    done = CliRunner().invoke(cli, ["doctor", "--imports", "train", "--json"])
    assert json.loads(done.stdout)
    assert "a warning" in done.stderr


def test_metadata_of_another_version(requires: list[str]) -> None:
    assert requires
    right, found = rows("train")["lmbatch"]
    assert not right
    assert "no extra image-train" in found


def test_a_module_of_ours_that_wants_what_should_be_there(requires: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    requires += ['orjson>=3; extra == "image-preprocess"', 'fastapi; extra == "serve"']
    monkeypatch.setitem(sys.modules, "orjson", None)
    monkeypatch.delitem(sys.modules, "lmbatch.shards.write", raising=False)
    for name in [name for name in sys.modules if name.startswith("lmbatch.corpus.json")]:
        monkeypatch.delitem(sys.modules, name)
    right, found = rows("preprocess")["modules of lmbatch"]
    assert not right
    assert "orjson" in found


def test_the_command(requires: list[str]) -> None:
    requires += ['no-such-thing>=1; extra == "image-serve"']
    done = CliRunner().invoke(cli, ["doctor", "--imports", "serve", "--json"])
    assert done.exit_code == 1
    wrong = [row["what"] for row in json.loads(done.stdout) if not row["right"]]
    assert wrong == ["no-such-thing"]
