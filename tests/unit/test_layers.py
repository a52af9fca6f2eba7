"""Imports flow one way, and a login node needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmbatch.cli import VERBS

SOURCE = Path(__file__).resolve().parents[2] / "src" / "lmbatch"

# What each room may import besides itself; everything may import errors and the version.
MAY_IMPORT = {
    "config": set(),
    "store": {"config"},
    "corpus": {"config", "store"},
    "tokens": {"config", "store", "corpus"},
    "shards": {"config", "store"},
    "preprocess": {"config", "store", "corpus", "tokens", "shards"},
    "loader": {"config", "store", "shards"},
    "interchange": {"config", "store", "shards", "loader"},
    "estimate": {"config", "store"},
    "model": {"config", "estimate"},
    "checkpoint": {"config", "store"},
    "infer": {"config", "store", "tokens", "model", "checkpoint"},
    "chat": {"config", "store", "model", "infer"},
    "train": {"config", "store", "tokens", "loader", "estimate", "model", "checkpoint", "infer"},
    "launch": {"config", "store", "corpus", "tokens", "shards", "preprocess", "checkpoint", "train"},
    "report": {"config", "store", "preprocess", "estimate", "checkpoint", "train"},
    "simulate": {"config", "store", "preprocess", "checkpoint", "train", "launch"},
    "cli": {
        "config",
        "store",
        "corpus",
        "tokens",
        "preprocess",
        "loader",
        "interchange",
        "estimate",
        "launch",
        "report",
        "simulate",
        "checkpoint",
        "train",
        "infer",
        "chat",
    },
}
HEAVY = ("torch", "transformers", "accelerate", "deepspeed", "safetensors", "datasets", "tensorboard", "gradio")


def imported_rooms(path: Path) -> Iterator[str]:
    """Rooms of this package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "lmbatch" else [node.module]
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "lmbatch" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_imports_follow_the_data(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room, "errors", "__version__"}
    for path in (SOURCE / room).rglob("*.py"):
        wrong = set(imported_rooms(path)) - allowed
        assert not wrong, f"{path.relative_to(SOURCE)} imports {sorted(wrong)}"


def test_every_room_is_in_the_plan_of_the_house() -> None:
    assert {path.parent.name for path in SOURCE.glob("*/__init__.py")} == set(MAY_IMPORT)


def loaded_by(code: str) -> set[str]:
    """Top-level modules that are loaded after ``code`` ran in a fresh interpreter."""
    script = f"{code}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_loads_no_torch(arguments: list[str]) -> None:
    code = f"from lmbatch.cli import cli\ncli.main({arguments!r}, standalone_mode=False)"
    assert not loaded_by(code) & set(HEAVY)


def test_help_of_the_whole_loads_next_to_nothing() -> None:
    code = "from lmbatch.cli import cli\ncli.main(['--help'], standalone_mode=False)"
    assert not loaded_by(code) & {*HEAVY, "numpy", "pyarrow", "pydantic", "tokenizers", "submitit", "rich", "fsspec"}


def test_the_login_node_half_imports_without_torch() -> None:
    code = (
        "import lmbatch.launch, lmbatch.report, lmbatch.preprocess, lmbatch.loader, lmbatch.shards, "
        "lmbatch.checkpoint, lmbatch.estimate.prediction, lmbatch.train.planning, lmbatch.simulate"
    )
    assert not loaded_by(code) & set(HEAVY)
