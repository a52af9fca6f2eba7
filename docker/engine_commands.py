"""Command lines of the programs that build, keep and convert images. Pure functions; nothing is run here.

Sources: docker-build(1) and the reference of BuildKit's secrets, podman-build(1), buildah-build(1), apptainer-build(1)
with the definition file's `{{ arguments }}` (Apptainer 1.2), enroot's `import` (3.4), mmdebstrap(1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Engine = Literal["docker", "podman", "buildah"]
ENGINES: tuple[Engine, ...] = ("docker", "podman", "buildah")
PACKAGES = {
    "docker": "Docker Engine: `apt-get install docker.io docker-buildx`, or see Docker's site",
    "podman": "`apt-get install podman runc`",
    "buildah": "`apt-get install buildah`",
    "mmdebstrap": "`apt-get install mmdebstrap`",
    "apptainer": "Apptainer 1.2 or newer: most clusters have it (`module load apptainer`); its site has packages",
    "enroot": "enroot and squashfs-tools: NVIDIA publishes packages of it; clusters with pyxis have it on their nodes",
    "tar": "`apt-get install tar`",
}


@dataclass(frozen=True)
class Build:
    """One build. ``secrets`` and ``folders`` are there for its commands only, and read-only."""

    target: str
    tag: str
    dockerfile: Path
    context: Path
    arguments: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()


class ImageError(Exception):
    """What cannot be done; the text is for the user and says what can."""


def build_command(engine: Engine, build: Build) -> list[str]:
    """Raises ImageError where docker would have to mount a folder of this machine."""
    if engine == "docker" and build.folders:
        raise ImageError(
            f"pip takes packages from {', '.join(map(str, build.folders))}, and docker cannot mount a folder while it "
            "builds: use ENGINE=podman or ENGINE=buildah, or a configuration of pip that names an index only"
        )
    return [
        engine, "build", *_engine_options(engine), *(["--target", build.target] if build.target else []),
        "--tag", build.tag, "--file", str(build.dockerfile),
        *(f"--build-arg={name}={value}" for name, value in build.arguments.items()),
        *(f"--secret=id={name},src={path}" for name, path in build.secrets.items()),
        *(f"--volume={path}:{path}:ro" for path in build.folders),
        str(build.context),
    ]  # fmt: skip


def _engine_options(engine: Engine) -> list[str]:
    """The format docker keeps HEALTHCHECK, which OCI's does not have; no network of its own is set up for a build."""
    if engine == "docker":
        return ["--network", "host"]
    isolation = ["--isolation", "chroot"] if engine == "buildah" else []
    return ["--format", "docker", "--layers", "--network", "host", *isolation]


def base_command(suite: str, sources: Iterable[Path], packages: Iterable[str], output: Path) -> list[str]:
    """A root filesystem from Debian's packages, through this machine's own sources, of which none stays inside."""
    return [
        "mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(packages)}",
        "--aptopt=Acquire::Languages \"none\"",
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale", "info")),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*',
        '--customize-hook=rm -f "$1"/etc/hostname "$1"/etc/resolv.conf',
        suite, str(output), *map(str, sources),
    ]  # fmt: skip


def apt_sources(files: Mapping[Path, str], suite: str) -> list[Path]:
    """Those files of apt's configuration that name the distribution's own archive (component `main`) of ``suite``."""
    return [
        path
        for path, text in sorted(files.items())
        if any(
            re.search(rf"\b{re.escape(suite)}\b", line) and not line.lstrip().startswith("#")
            for line in text.splitlines()
        )
        and re.search(r"^(Components:.*|deb\b.*)\bmain\b", text, re.MULTILINE)
    ]


def sif_commands(engine: Engine, tag: str, definition: Path, archive: Path, output: Path) -> list[list[str]]:
    """To Apptainer's format, by way of an archive that `podman save` or `docker save` writes."""
    save = {
        "docker": ["docker", "save", "--output", str(archive), tag],
        "podman": ["podman", "save", "--format", "docker-archive", "--output", str(archive), tag],
        "buildah": ["buildah", "push", tag, f"docker-archive:{archive}:{tag}"],
    }[engine]
    build = ["apptainer", "build", "--force", "--build-arg", f"archive={archive}", str(output), str(definition)]
    return [save, build]


def sqsh_command(engine: Engine, tag: str, output: Path) -> list[str]:
    """To enroot's format. Raises ImageError for buildah, whose images enroot does not read."""
    schemes = {"docker": "dockerd", "podman": "podman"}
    if engine not in schemes:
        raise ImageError("enroot reads the images of docker and podman only: ENGINE=podman")
    return ["enroot", "import", "--output", str(output), f"{schemes[engine]}://{tag}"]


def export_commands(engine: Engine, container: str) -> tuple[list[str], list[str]]:
    """Writes the container's filesystem to standard output; removes the container."""
    if engine == "buildah":
        raise ImageError("buildah cannot export an image's files: ENGINE=podman or ENGINE=docker")
    return [engine, "export", container], [engine, "rm", container]


def unpack_command(folder: Path) -> list[str]:
    """Reads a filesystem from standard input. Everything belongs to who unpacks it, as Charliecloud wants it."""
    return [
        "tar", "--extract", "--preserve-permissions", "--no-same-owner", "--exclude=dev/*", "--directory", str(folder),
    ]  # fmt: skip
