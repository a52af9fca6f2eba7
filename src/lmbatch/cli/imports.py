"""What an installation should be able to import, and whether it can: the smoke test of an image or of a site's venv.

What belongs to it stands in the package's own metadata (pyproject.toml), so there is no second list to keep.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import metadata

import lmbatch

INSTALLED = "installed"
PURPOSES = ("preprocess", "train", "serve")
_REQUIREMENT = re.compile(
    r"""(?P<name>[\w.-]+)\s*(?:\[(?P<extras>[^\]]*)\])?[^;]*(?:;.*\bextra\s*==\s*["'](?P<extra>[\w-]+)["'])?"""
)

Row = tuple[str, bool, str]


@dataclass(frozen=True)
class Requirement:
    """One line of a distribution's ``Requires-Dist``; ``extra`` is the one that it belongs to, or the empty string."""

    name: str
    extras: frozenset[str]
    extra: str


def parse_requirements(lines: Iterable[str]) -> tuple[Requirement, ...]:
    """Requirements as the metadata of a wheel has them (core metadata 2.1, ``Requires-Dist``)."""
    found = filter(None, map(_REQUIREMENT.match, lines))
    return tuple(
        Requirement(
            _normal(match["name"]),
            frozenset(filter(None, (_normal(extra.strip()) for extra in (match["extras"] or "").split(",")))),
            _normal(match["extra"] or ""),
        )
        for match in found
    )


def expected(requirements: Iterable[Requirement], extras: Iterable[str]) -> dict[str, str]:
    """Distributions of the base and of ``extras`` with the extra that each comes from; `lmbatch[x]` stands for x."""
    requirements = tuple(requirements)
    result: dict[str, str] = {}
    open_, seen = ["", *map(_normal, extras)], set[str]()
    while open_:
        extra = open_.pop(0)
        seen.add(extra)
        for requirement in (each for each in requirements if each.extra == extra):
            if requirement.name == "lmbatch":
                open_ += sorted(requirement.extras - seen)
            else:
                result.setdefault(requirement.name, extra)
    return result


def extras_in_use(requirements: Iterable[Requirement], versions: Mapping[str, str]) -> tuple[str, ...]:
    """Extras of which at least one distribution is installed, those of development left out."""
    return tuple(
        sorted(
            {
                each.extra
                for each in requirements
                if each.extra not in ("", "dev", "demo") and each.name != "lmbatch" and each.name in versions
            }
        )
    )


def check_imports(purpose: str) -> Iterator[Row]:
    """One row for each distribution that ``purpose`` needs, and one for the modules of lmbatch itself."""
    try:
        requirements = parse_requirements(metadata.requires("lmbatch") or ())
    except metadata.PackageNotFoundError:
        yield "lmbatch", False, "has no metadata here, so nobody knows what it needs: pip install lmbatch"
        return
    versions = {_normal(each.name): each.version for each in metadata.distributions() if each.name}
    extras = extras_in_use(requirements, versions) if purpose == INSTALLED else (f"image-{purpose}",)
    if unknown := [extra for extra in extras if all(each.extra != extra for each in requirements)]:
        yield (
            "lmbatch",
            False,
            f"its metadata knows no extra {unknown[0]}: it is of another version, install it anew",
        )
        return
    wanted = expected(requirements, extras)
    tops = _top_levels()
    for name, extra in sorted(wanted.items()):
        yield _import_distribution(name, extra, versions.get(name), tops.get(name, ()))
    foreign = {top for name, found in tops.items() if name in wanted for top in found}
    yield _import_own_modules(foreign)


def _import_distribution(name: str, extra: str, version: str | None, tops: Iterable[str]) -> Row:
    remedy = f"pip install 'lmbatch[{extra}]'" if extra else "pip install lmbatch"
    if version is None:
        return name, False, f"not installed: {remedy}"
    for top in tops:
        if problem := _import(top):
            return name, False, f"{version}, but `import {top}` fails: {problem}; install it anew: {remedy}"
    return name, True, version


def _import(module: str) -> str | None:
    """The complaint, or None. Whatever an import raises, the others are still looked at; what it says is no answer."""
    try:
        with redirect_stdout(sys.stderr):
            importlib.import_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _import_own_modules(needed: set[str]) -> Row:
    """Every module of lmbatch, except those that want a distribution which is not expected here."""
    count = 0
    for module in pkgutil.walk_packages(lmbatch.__path__, "lmbatch.", onerror=lambda _: None):
        if module.name.endswith("__main__"):
            continue
        try:
            with redirect_stdout(sys.stderr):
                importlib.import_module(module.name)
            count += 1
        except ModuleNotFoundError as error:
            top = (error.name or "").partition(".")[0]
            if top in needed or top == "lmbatch":
                return "modules of lmbatch", False, f"{module.name} wants {error.name}; install lmbatch anew"
        except Exception as error:
            return "modules of lmbatch", False, f"{module.name}: {type(error).__name__}: {error}"
    return "modules of lmbatch", True, f"{count} imported"


def _top_levels() -> dict[str, tuple[str, ...]]:
    """Distribution → its importable names: the one that is called like it, or all public ones."""
    found: dict[str, set[str]] = {}
    for top, names in metadata.packages_distributions().items():
        for name in names:
            found.setdefault(_normal(name), set()).add(top)
    return {name: _principal(name, tops) for name, tops in found.items()}


def _principal(name: str, tops: set[str]) -> tuple[str, ...]:
    own = tuple(top for top in tops if _normal(top) == name)
    return own or tuple(sorted(top for top in tops if not top.startswith("_") and top.isidentifier()))


def _normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
