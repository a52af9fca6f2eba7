"""Can work run in the container of a site? Asked before a job is queued, and on each node before it trains.

::

    program ─▶ image ─▶ architecture ─▶ version of lmbatch ─▶ mounts ─▶ /dev/shm          the first that fails is told

The version is read without running the image where that is possible: from the name of the installed package's folder in
a directory or a SquashFS file, or from the label ``org.opencontainers.image.version``.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmbatch import __version__
from lmbatch.config import ContainerSite
from lmbatch.errors import ContainerError
from lmbatch.launch.container import ContainerWork, mounts_of

_PROGRAMS = {
    "pyxis": "srun",
    "apptainer": "apptainer",
    "charliecloud": "ch-run",
    "podman": "podman",
    "docker": "docker",
}
_INSTALLED = tuple(
    f"{base}/lib/python3*/{kind}-packages/lmbatch-*.dist-info"
    for base in ("opt/lmbatch", "opt/venv", "usr/local", "usr") for kind in ("site", "dist")
)  # fmt: skip
_LABEL = "org.opencontainers.image.version"
_SECONDS = 120.0
_SHM = Path("/dev/shm")  # noqa: S108
_MIB = 2**20
# e_machine of an ELF header (elf.h), and what platform.machine() and Go's GOARCH call the same.
_ELF = {0x3E: "x86_64", 0xB7: "aarch64", 0x15: "ppc64le", 0xF3: "riscv64"}
_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of an image without running it; None: unknown. ``architecture`` is as ``uname -m`` names it."""

    version: str | None
    architecture: str | None


def check_container(site: ContainerSite, work: ContainerWork, *, on_node: bool = True) -> None:
    """Raise ContainerError for the first thing that keeps ``work`` from running in the container of ``site``.

    ``on_node=False`` on a machine that only submits, whose programs are not those of the nodes: a runtime that is not
    there is left for the nodes to tell, and /dev/shm is not looked at.
    """
    if site.runtime == "none":
        return
    if on_node or _has_program(site):
        check_program(site)
        check_image(site)
    check_mounts(site, work)
    if on_node:
        check_shm(site)


def check_program(site: ContainerSite) -> None:
    """Is the runtime installed?"""
    if not _has_program(site):
        what = "the plugin pyxis of srun" if site.runtime == "pyxis" else f"the program `{_PROGRAMS[site.runtime]}`"
        raise ContainerError(
            f"container.runtime is {site.runtime}, and {what} is not there on {platform.node()}",
            remedy="install it, load its module in `setup` of the site file, or choose another runtime",
        )


def check_image(site: ContainerSite) -> None:
    """Is the image there, for this machine, with this version of lmbatch?"""
    check_facts(image_facts(site), site)


def check_facts(facts: ImageFacts, site: ContainerSite) -> None:
    """The same for an image that has been looked at; what is not known is not refused. Pure but for ``uname``."""
    own = platform.machine()
    if facts.architecture not in (None, own):
        raise ContainerError(
            f"{site.image}: the image is for {facts.architecture}, and this machine is {own}",
            remedy=f"build it on a machine of the same kind as the nodes (`make image`), or for {own}",
        )
    if not site.code and facts.version not in (None, __version__):
        raise ContainerError(
            f"{site.image}: the image holds lmbatch {facts.version}, and the host has lmbatch {__version__}",
            remedy="build the image again (`make image`), install the same version on the host, or set container.code "
            "to run the host's code with the image's packages",
        )


def check_mounts(site: ContainerSite, work: ContainerWork) -> None:
    """Is there what is to be mounted, and may it be written to? Folders that the work writes to are made."""
    for path in (*work.written, *(path for _, path in work.caches)):
        _make(path)
    for path in dict.fromkeys((*(mount.source for mount in mounts_of(site, work)), *work.folders)):
        if not path.exists():
            raise ContainerError(
                f"{path}: is to be mounted into the container, and is not there on {platform.node()}",
                remedy="mind the spelling; a path must be the same on all nodes",
            )
    for path in (*work.written, *(path for _, path in work.caches)):
        if not os.access(path, os.W_OK):
            raise ContainerError(
                f"{path}: user {os.getuid()} may not write here, and the work in the container has to",
                remedy="give it to the user, or name another folder in the config",
            )
    if site.runtime == "charliecloud":
        _prepare_charliecloud(site, work)


def check_shm(site: ContainerSite) -> None:
    """Is the node's /dev/shm as large as the site wants? podman and docker make their own, in the same memory."""
    size = shutil.disk_usage(_SHM).total
    if site.shm is not None and size < site.shm:
        raise ContainerError(
            f"{_SHM} of {platform.node()} holds {size // _MIB} MiB, and container.shm asks for {site.shm // _MIB} MiB",
            remedy="ask for less, or have it made larger (mount -o remount,size=…)",
        )


def image_facts(site: ContainerSite) -> ImageFacts:
    """What can be read of the image. Raises ContainerError if it is not there."""
    image = str(site.image)
    if site.runtime in ("podman", "docker"):
        return _of_engine(site)
    if "://" in image or (site.runtime == "pyxis" and not _is_path(image)):
        return ImageFacts(None, None)  # a registry's: fetched by the node
    if not Path(image).exists():
        raise ContainerError(f"{image}: there is no such image", remedy=_HOW_TO_BUILD[site.runtime])
    if site.runtime == "apptainer":
        return _of_sif(image)
    return _of_folder(Path(image)) if site.runtime == "charliecloud" else _of_squashfs(image)


_HOW_TO_BUILD = {
    "pyxis": "`make image-sqsh` makes it (docker/README.md)",
    "apptainer": "`make image-sif` makes it (docker/README.md)",
    "charliecloud": "`make image-dir` makes it (docker/README.md)",
    "podman": "`make image` builds it; on other nodes `podman load` of what `podman save` wrote",
    "docker": "`make image` builds it; on other nodes `docker load` of what `docker save` wrote",
}


# ── each kind of image ───────────────────────────────────────────────────────────────────────────────────────────────
def _of_folder(image: Path) -> ImageFacts:
    if not image.is_dir():
        raise ContainerError(
            f"{image}: the image for Charliecloud must be a folder, in which places to mount can be made",
            remedy="unpack a SquashFS file with `unsquashfs -d FOLDER FILE`",
        )
    if not (image / "ch" / "environment").is_file():
        raise ContainerError(
            f"{image}: has no file ch/environment with the variables of the image",
            remedy=f"{_HOW_TO_BUILD['charliecloud']}, and so does `ch-convert`; by hand: one NAME=VALUE in each line",
        )
    found = [path.name for pattern in _INSTALLED for path in image.glob(pattern)]
    return ImageFacts(_version_in(found), _architecture_of(image))


def _of_squashfs(image: str) -> ImageFacts:
    """``unsquashfs -ls`` names files without reading them; where it is not installed nothing is known."""
    if shutil.which("unsquashfs") is None:
        return ImageFacts(None, None)
    return ImageFacts(_version_in(_output("unsquashfs", "-ls", image, *_INSTALLED).split()), None)


def _of_sif(image: str) -> ImageFacts:
    """Labels as ``apptainer inspect --json`` gives them."""
    labels = json.loads(_output("apptainer", "inspect", "--json", image))["data"]["attributes"]["labels"]
    return ImageFacts(labels.get(_LABEL), _known(labels.get("org.label-schema.build-arch")))


def _of_engine(site: ContainerSite) -> ImageFacts:
    done = _run(site.runtime, "image", "inspect", str(site.image))
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["no reason given"]
        raise ContainerError(
            f"{site.image}: {site.runtime} knows no such image on {platform.node()} ({words[-1]})",
            remedy=_HOW_TO_BUILD[site.runtime],
        )
    found: dict[str, Any] = json.loads(done.stdout)[0]
    version = (found.get("Config", {}).get("Labels") or {}).get(_LABEL)
    return ImageFacts(version or _told_by_image(site), _known(found.get("Architecture")))


def _told_by_image(site: ContainerSite) -> str | None:
    """What the image itself says; for images that carry no label."""
    ask = ("-c", "import lmbatch; print(lmbatch.__version__)")
    done = _run(site.runtime, "run", "--rm", "--network=none", "--entrypoint=", str(site.image), site.python, *ask)
    return done.stdout.strip() or None


def _architecture_of(image: Path) -> str | None:
    """From the ELF header of a program that every Linux has; links are followed inside the image."""
    for name in ("usr/bin/env", "bin/env", "bin/busybox", "usr/bin/dash"):
        path = image / name
        if path.is_file() and not path.is_symlink():
            head = path.open("rb").read(20)
            return _ELF.get(int.from_bytes(head[18:20], "little")) if head[:4] == b"\x7fELF" else None
    return None


def _version_in(names: Sequence[str]) -> str | None:
    found = [match[1] for name in names if (match := re.search(r"lmbatch-([^-/]+)\.dist-info$", name))]
    return found[0] if found else None


def _known(architecture: str | None) -> str | None:
    return _ALIASES.get(architecture, architecture) if architecture else None


# ── small things ─────────────────────────────────────────────────────────────────────────────────────────────────────
def _prepare_charliecloud(site: ContainerSite, work: ContainerWork) -> None:
    """Make the places to mount, which ch-run wants to find in an image that it does not write to."""
    for name in ("hosts", "resolv.conf"):  # the node's are mounted over them, but only if they are there
        _make_file(Path(str(site.image)) / "etc" / name)
    for mount in mounts_of(site, work):
        if mount.read_only:
            raise ContainerError(
                f"{mount.source}: ch-run cannot mount read-only", remedy="leave out :ro, or choose another runtime"
            )
        place = Path(str(site.image)) / mount.inside.relative_to("/")
        _make(place) if mount.source.is_dir() else _make_file(place)


def _make_file(path: Path) -> None:
    if not path.exists():
        _make(path.parent)
        path.touch()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ContainerError(
            f"{folder}: cannot be made, and the container needs it: {error.strerror}",
            remedy="make it by hand, or name another folder in the config",
        ) from None


def _has_program(site: ContainerSite) -> bool:
    if shutil.which(_PROGRAMS[site.runtime]) is None:
        return False
    return site.runtime != "pyxis" or "--container-image" in _run("srun", "--help").stdout


def _is_path(image: str) -> bool:
    return image.startswith(("/", ".")) or image.endswith((".sqsh", ".squashfs"))


def _output(*command: str) -> str:
    done = _run(*command)
    if done.returncode:
        raise ContainerError(f"`{' '.join(command[:3])} …` failed: {done.stderr.strip()}", remedy="look at the image")
    return done.stdout


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
