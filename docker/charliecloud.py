"""What Charliecloud wants to find in an image's folder besides its files (ch-run(1), "Image format")."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_MOUNT_POINTS = tuple(f"mnt/{number}" for number in range(10))  # where `ch-run -b FOLDER` puts folders without a place
_FOLDERS = ("ch", "dev", "etc", "home", "mnt", "proc", "run", "sys", "tmp", *_MOUNT_POINTS)
_FILES = (
    "etc/hosts",
    "etc/resolv.conf",
    "etc/passwd",
    "etc/group",
    "etc/machine-id",
)  # ch-run mounts the node's over them

_FACTS = "ch/metadata.json"
_CACHES = "/var/cache/lmbatch"


@dataclass(frozen=True)
class Image:
    """The settings of an image that a plain folder would lose."""

    environment: Mapping[str, str]
    labels: Mapping[str, str]
    workdir: str
    identity: str = ""

    @classmethod
    def parse(cls, inspected: str) -> Self:
        """From `podman image inspect` or `docker image inspect`."""
        facts = json.loads(inspected)[0]
        config = facts["Config"]
        environment = dict(each.split("=", 1) for each in config.get("Env") or ())
        return cls(environment, config.get("Labels") or {}, config.get("WorkingDir") or "/", facts["Id"])


def complete(folder: Path, image: Image) -> None:
    """Add mount points, and the environment for `ch-run --set-env`; labels and the rest for who asks later."""
    for name in _FOLDERS:
        (folder / name).mkdir(exist_ok=True)
    for name in _FILES:
        if not (folder / name).is_file():
            (folder / name).unlink(missing_ok=True)
            (folder / name).touch()
    (folder / "ch" / "environment").write_text(render_environment(image.environment), encoding="utf-8")
    facts = {"cwd": image.workdir, "env": dict(image.environment), "labels": dict(image.labels), "id": image.identity}
    (folder / _FACTS).write_text(json.dumps(facts, indent=2, ensure_ascii=False), encoding="utf-8")


def is_of(folder: Path, image: Image) -> bool:
    """Whether the folder was made of this very image, and completely."""
    try:
        return bool(json.loads((folder / _FACTS).read_bytes())["id"] == image.identity)
    except (OSError, ValueError, KeyError):
        return False


def render_environment(environment: Mapping[str, str]) -> str:
    """One NAME=VALUE a line; ch-run takes values as they are, quotes and all.

    A folder cannot be written to from inside: caches and HOME are the user's own there, as on the node itself.
    """
    return "".join(f"{name}={value}\n" for name, value in environment.items() if not value.startswith(_CACHES))
