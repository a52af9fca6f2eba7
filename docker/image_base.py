"""A base image for CPUs from the packages of this machine's distribution: no registry is needed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from engine_commands import Build, ImageError, apt_sources, base_command, build_command
from image_shop import Shop, require, say, scratch_folder

PUBLISHED_BASE = "debian:bookworm-slim"
PACKAGES = ("ca-certificates", "python3", "python3-venv", "tini")


def make_base(shop: Shop) -> str:
    """Make it anew; its tag. Takes half a minute."""
    require("mmdebstrap")
    suite = suite_of(Path("/etc/os-release").read_text("utf-8"))
    sources = apt_sources(_apt_files(Path("/etc/apt")), suite)
    if not sources:
        raise ImageError(f"no file in /etc/apt names the archive of {suite}: give BASE_IMAGE={PUBLISHED_BASE}")
    with scratch_folder() as context:
        shop.run(base_command(suite, sources, PACKAGES, context / "base.tar"))
        (context / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n", encoding="utf-8")
        build = Build("", tag_of_base(suite), context / "Dockerfile", context)
        shop.run([*build_command(shop.engine, build)], stdout=subprocess.DEVNULL)
    return build.tag


def default_base(shop: Shop) -> str:
    """Our own base where it can be made; otherwise the published one."""
    if shutil.which("mmdebstrap") is None:
        return PUBLISHED_BASE
    tag = tag_of_base(suite_of(Path("/etc/os-release").read_text("utf-8")))
    if not shop.has(tag):
        say(f"no BASE_IMAGE given: making {tag} from the packages of this machine's distribution")
        make_base(shop)
    return tag


def tag_of_base(suite: str) -> str:
    """The name that the base gets."""
    return f"localhost/lmbatch-base:{suite}"


def suite_of(os_release: str) -> str:
    """The code name of the distribution (os-release(5)). Raises ImageError where it has none."""
    lines = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    suite = lines.get("VERSION_CODENAME", "").strip("\"'")
    if not suite:
        raise ImageError(f"a base can be made on Debian and Ubuntu only: give BASE_IMAGE={PUBLISHED_BASE}")
    return suite


def _apt_files(folder: Path) -> dict[Path, str]:
    files = (path for pattern in ("sources.list", "sources.list.d/*.list", "sources.list.d/*.sources")
             for path in folder.glob(pattern))  # fmt: skip
    return {path: path.read_text("utf-8", "replace") for path in files}
