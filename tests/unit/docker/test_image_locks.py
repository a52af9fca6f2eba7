"""The images' requirements fit pyproject.toml and constraints.txt, and whatever does not fit is named."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest

from support.scripts import ROOT, docker_module

locks = docker_module("lock_requirements")

HASH = f"--hash=sha256:{'0' * 64}"
LOCK = locks.parse(f"# for: click>=8\nclick==8.1 \\\n    {HASH}\nPyYAML==6.0 \\\n    {HASH} \\\n    {HASH}\n")
CONSTRAINTS = {"click": "8.1", "pyyaml": "6.0"}


def test_the_locks_of_this_tree_fit() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    constraints = locks.read_constraints((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert locks.check(locks.FOLDER, locks.wanted_locks(project), constraints) == []


def test_a_lock_is_read_and_written() -> None:
    assert LOCK.pins == {"click": "8.1", "pyyaml": "6.0"}
    assert locks.parse(locks.render(LOCK)) == LOCK
    assert list(locks.problems(LOCK, ["click>=8"], CONSTRAINTS)) == []


def test_torch_is_never_written() -> None:
    assert "torch" not in locks.render(locks.parse(f"torch==2.13.0 \\\n    {HASH}\nclick==8.1 \\\n    {HASH}\n"))


@pytest.mark.parametrize(
    ("lock", "wanted", "constraints", "complaint"),
    [
        (LOCK, ["click>=8", "rich"], CONSTRAINTS, "rich is asked for but not locked"),
        (LOCK, ["click>=8", "rich"], CONSTRAINTS, "rich has no entry"),
        (LOCK, ["click>=9"], CONSTRAINTS, "click>=8 is locked but not asked for"),
        (LOCK, ["click>=8"], {**CONSTRAINTS, "pyyaml": "6.1"}, "pyyaml is 6.0 here and 6.1 in constraints.txt"),
        (LOCK, ["click>=8"], {"click": "8.1"}, "pyyaml is 6.0 here and absent in constraints.txt"),
        (replace(LOCK, blocks={**LOCK.blocks, "click": "click==8.1"}), ["click>=8"], CONSTRAINTS, "click has no hash"),
        (
            replace(LOCK, blocks={**LOCK.blocks, "click": f"click @ https://a/click.whl {HASH}"}),
            ["click>=8"],
            CONSTRAINTS,
            "click names an index",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    lock: object, wanted: list[str], constraints: dict[str, str], complaint: str
) -> None:
    assert complaint in list(locks.problems(lock, wanted, constraints))


def test_an_extra_may_stand_for_others() -> None:
    project = {
        "dependencies": ["click>=8"],
        "optional-dependencies": {
            "s3": ["obstore"], "image-preprocess": ["lmbatch[s3]"],
            "image-train": ["lmbatch[image-preprocess, train]", "extra"], "train": ["torch>=2"],
        },
    }  # fmt: skip
    assert locks.roots(project, "train") == ("click>=8", "extra", "obstore", "torch>=2")
