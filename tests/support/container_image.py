"""The project's images for tests: built once on a machine, with the code as it is now.

The layers below the code are kept by podman in ``data/containers`` (or where LMBATCH_CONTAINERS says) and are taken
again while the Dockerfile, the locks and the base are the same. Images and folders belong to this tree; two trees may
share their layers.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.scripts import ROOT, docker_module

NEEDED = ("podman", "runc", "mmdebstrap")


@dataclass(frozen=True)
class TestImage:
    """``tag`` is its name in podman; ``environment`` is what podman needs to find it."""

    __test__ = False
    target: str
    tag: str
    environment: dict[str, str]

    def run(self, *command: str, options: tuple[str, ...] = (), check: bool = True) -> subprocess.CompletedProcess[str]:
        """A container of it that is removed when the command ends."""
        return self.podman("run", "--rm", "--network", "host", *options, self.tag, *command, check=check)

    @contextmanager
    def started(self, *command: str, options: tuple[str, ...] = ()) -> Iterator[str]:
        """The name of a container in the background, which is gone afterwards."""
        name = f"lmbatch-test-{secrets.token_hex(6)}"
        try:
            self.podman("run", "--detach", "--name", name, "--network", "host", *options, self.tag, *command)
            yield name
        finally:
            self.podman("rm", "--force", "--ignore", "--time", "0", name)

    def podman(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """podman itself; what it printed is shown where it fails."""
        done = subprocess.run(
            ["podman", *arguments], env=self.environment, capture_output=True, text=True, timeout=280, check=False
        )
        assert not check or done.returncode == 0, f"podman {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done

    def folder(self) -> Path:
        """The same as a folder for Charliecloud; made again only if the image has changed."""
        images = docker_module("images")
        with _lock():
            return images.write_folder(
                _shop(), self.tag, _state() / "folders" / self.tag.replace("/", "_").replace(":", "_")
            )


@functools.cache
def container_image(target: str) -> TestImage:
    """The image of a target with the tree as it is when a session first asks. Skips where a program is missing."""
    missing = [program for program in NEEDED if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing:
        pytest.skip(f"this machine has no {', '.join(missing)}: run `cluster/install.sh {' '.join(missing)}` as root")
    shop = _shop()
    tree = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
    with _lock():
        tag = docker_module("images").build_image(shop, target, None, {}, tag=f"localhost/lmbatch-test-{tree}:{target}")
    return TestImage(target, tag, dict(shop.environment))


def _shop():  # type: ignore[no-untyped-def]
    return docker_module("image_shop").open_shop("podman", os.environ)


def _state() -> Path:
    return _shop().state


@contextmanager
def _lock() -> Iterator[None]:
    """One build or export at a time, over all sessions on this machine that share the layers."""
    state = _state()
    state.mkdir(parents=True, exist_ok=True)
    with (state / "tests.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
