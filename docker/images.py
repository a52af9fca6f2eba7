"""Build the images of docker/Dockerfile, and convert them to what clusters run.

    python docker/images.py build train             make image TARGET=train
    python docker/images.py base                    make image-base: a base for CPUs from Debian's packages
    python docker/images.py dir train               make image-dir: a folder for Charliecloud
    python docker/images.py sif train               make image-sif: a file for Apptainer
    python docker/images.py sqsh train              make image-sqsh: a file for enroot and pyxis
    eval "$(python docker/images.py env)"           where `make image` keeps podman's images on this machine

It needs Python's standard library and one of docker, podman and buildah.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path

import charliecloud
from build_host import borrow
from engine_commands import (
    ENGINES,
    Build,
    ImageError,
    build_command,
    export_commands,
    sif_commands,
    sqsh_command,
    unpack_command,
)
from image_base import default_base, make_base
from image_shop import ROOT, Shop, open_shop, require, say, scratch_folder

DOCKER = ROOT / "docker"
TARGETS = ("preprocess", "train", "serve", "s3")


def tag_of(target: str) -> str:
    """The name that a target's image gets."""
    return f"localhost/lmbatch:{target}"


def build_image(
    shop: Shop, target: str, base: str | None, arguments: Mapping[str, str], *, tag: str | None = None
) -> str:
    """Build one target with the tree as it is now; its tag."""
    base = base or default_base(shop)
    borrowed = borrow(os.environ, Path.home())
    with scratch_folder() as folder:
        pip_conf = folder / "pip.conf"
        pip_conf.touch(mode=0o600)  # an index's address may hold a password
        pip_conf.write_text(borrowed.pip_conf, encoding="utf-8")
        build = Build(
            target=target,
            tag=tag or tag_of(target),
            dockerfile=DOCKER / "Dockerfile",
            context=ROOT,
            arguments={"BASE_IMAGE": base, "VERSION": version(), "REVISION": revision(), **arguments},
            secrets={"pip.conf": pip_conf, **({"ca.crt": borrowed.ca} if borrowed.ca else {})},
            folders=borrowed.folders,
        )
        say(f"{build.tag} from {base} with {shop.engine}")
        began = time.monotonic()
        shop.run(build_command(shop.engine, build))
    say(f"{build.tag}: {size(shop, build.tag) / 1e6:,.0f} MB, built in {time.monotonic() - began:.0f} s")
    return build.tag


def size(shop: Shop, tag: str) -> int:
    """Bytes of all layers, not compressed."""
    if shop.engine == "buildah":
        text = shop.ask("images", "--json", tag)
        return _buildah_size(text)
    return int(shop.ask("image", "inspect", "--format", "{{.Size}}", tag))


def version() -> str:
    """Of pyproject.toml."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"])


def revision() -> str:
    """The commit, with `-dirty` where files that reach an image differ from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return "unknown"
    inside = ("pyproject.toml", "constraints.txt", "src", "configs", "docker")
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", *inside], capture_output=True, text=True, check=False
    )
    return head.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


def write_folder(shop: Shop, tag: str, output: Path) -> Path:
    """The image's files as a folder for Charliecloud, which takes the place of an older one when it is complete."""
    image = charliecloud.Image.parse(shop.ask("image", "inspect", tag))
    if charliecloud.is_of(output, image):
        return output
    output.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    container = shop.ask("create", tag)
    export, remove = export_commands(shop.engine, container)
    try:
        with subprocess.Popen(export, env=dict(shop.environment), stdout=subprocess.PIPE) as source:
            shop.run(unpack_command(new), stdin=source.stdout)
        if source.returncode:
            raise ImageError(f"{shlex.join(export)} ended with exit code {source.returncode}")
        charliecloud.complete(new, image)
        new.chmod(0o755)
        replace_folder(new, output)
    finally:
        shop.run(remove, stdout=subprocess.DEVNULL)
        shutil.rmtree(new, ignore_errors=True)
    return output


def replace_folder(new: Path, old: Path) -> None:
    """Jobs that run in the old folder keep their open files; nobody sees a half of the new one."""
    aside = new.with_name(f"{new.name}.old")
    if old.exists():
        old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside, ignore_errors=True)


def write_sif(shop: Shop, tag: str, output: Path) -> Path:
    """A file for Apptainer."""
    require("apptainer")
    with scratch_folder() as folder:
        for command in sif_commands(shop.engine, tag, DOCKER / "lmbatch.def", folder / "image.tar", output):
            shop.run(command)
    return output


def write_sqsh(shop: Shop, tag: str, output: Path) -> Path:
    """A file for enroot and pyxis."""
    require("enroot")
    shop.run(sqsh_command(shop.engine, tag, output))
    return output


def _buildah_size(text: str) -> int:
    """`buildah images` gives sizes for people only, such as `1.2 GB`."""
    import json

    number, unit = json.loads(text)[0]["size"].split()
    return int(float(number) * {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}[unit.upper()])


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("build", "base", "dir", "sif", "sqsh", "env"))
    parser.add_argument("target", nargs="?", default="train", choices=TARGETS)
    parser.add_argument("--engine", choices=("", *ENGINES), help="default: the first that works")
    parser.add_argument("--base", help="BASE_IMAGE of the Dockerfile; default: one made from this machine's packages")
    parser.add_argument("--set", action="append", default=[], metavar="ARG=VALUE", help="another ARG of the Dockerfile")
    parser.add_argument("--output", type=Path, help="file or folder to write; default: data/images/lmbatch-TARGET…")
    arguments = parser.parse_args()
    try:
        shop = open_shop(arguments.engine, os.environ)
        return act(shop, arguments)
    except ImageError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1


def act(shop: Shop, arguments: argparse.Namespace) -> int:
    """Do what the command line says."""
    target = arguments.target
    if arguments.action == "env":
        names = [name for name in ("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF") if name in shop.environment]
        print("\n".join(f"export {name}={shlex.quote(shop.environment[name])}" for name in names))
    elif arguments.action == "base":
        say(f"{make_base(shop)}: give it as BASE_IMAGE, or nothing: it is the default now")
    elif arguments.action == "build":
        build_image(shop, target, arguments.base, dict(each.split("=", 1) for each in arguments.set))
    else:
        if not shop.has(tag_of(target)):
            build_image(shop, target, arguments.base, dict(each.split("=", 1) for each in arguments.set))
        suffix, write = {
            "dir": ("", write_folder),
            "sif": (".sif", write_sif),
            "sqsh": (".sqsh", write_sqsh),
        }[arguments.action]
        output = arguments.output or ROOT / "data" / "images" / f"lmbatch-{target}{suffix}"
        say(f"{write(shop, tag_of(target), output.absolute())} is there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
