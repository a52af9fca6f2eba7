"""The command lines that build and convert images, word for word: most of these programs are not on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.scripts import docker_module

commands = docker_module("engine_commands")

BUILD = commands.Build(
    target="train",
    tag="localhost/lmbatch:train",
    dockerfile=Path("/p/docker/Dockerfile"),
    context=Path("/p"),
    arguments={"BASE_IMAGE": "debian:bookworm-slim", "VERSION": "0.1.0"},
    secrets={"pip.conf": Path("/t/pip.conf"), "ca.crt": Path("/e/ca.crt")},
)
TAIL = (
    "--target train --tag localhost/lmbatch:train --file /p/docker/Dockerfile "
    "--build-arg=BASE_IMAGE=debian:bookworm-slim --build-arg=VERSION=0.1.0 "
    "--secret=id=pip.conf,src=/t/pip.conf --secret=id=ca.crt,src=/e/ca.crt /p"
)


@pytest.mark.parametrize(
    ("engine", "head"),
    [
        ("docker", "docker build --network host"),
        ("podman", "podman build --format docker --layers --network host"),
        ("buildah", "buildah build --format docker --layers --network host --isolation chroot"),
    ],
)
def test_a_build(engine: str, head: str) -> None:
    assert " ".join(commands.build_command(engine, BUILD)) == f"{head} {TAIL}"


def test_a_folder_with_wheels_is_mounted_read_only() -> None:
    build = commands.Build("", "base", Path("D"), Path(), folders=(Path("/opt/wheels"),))
    assert "--volume=/opt/wheels:/opt/wheels:ro" in commands.build_command("podman", build)
    with pytest.raises(commands.ImageError, match=r"/opt/wheels.*ENGINE=podman"):
        commands.build_command("docker", build)


@pytest.mark.parametrize(
    ("engine", "save"),
    [
        ("docker", "docker save --output /t/a.tar localhost/lmbatch:train"),
        ("podman", "podman save --format docker-archive --output /t/a.tar localhost/lmbatch:train"),
        ("buildah", "buildah push localhost/lmbatch:train docker-archive:/t/a.tar:localhost/lmbatch:train"),
    ],
)
def test_to_apptainer(engine: str, save: str) -> None:
    made = commands.sif_commands(
        engine, "localhost/lmbatch:train", Path("/p/docker/lmbatch.def"), Path("/t/a.tar"), Path("/o/train.sif")
    )
    build = "apptainer build --force --build-arg archive=/t/a.tar /o/train.sif /p/docker/lmbatch.def"
    assert [" ".join(command) for command in made] == [save, build]


def test_the_definition_takes_the_archive_that_it_is_given() -> None:
    definition = (Path(commands.__file__).parent / "lmbatch.def").read_text(encoding="utf-8")
    assert "Bootstrap: docker-archive\nFrom: {{ archive }}\n" in definition


@pytest.mark.parametrize(("engine", "scheme"), [("docker", "dockerd"), ("podman", "podman")])
def test_to_enroot(engine: str, scheme: str) -> None:
    made = commands.sqsh_command(engine, "localhost/lmbatch:train", Path("/o/train.sqsh"))
    assert " ".join(made) == f"enroot import --output /o/train.sqsh {scheme}://localhost/lmbatch:train"


def test_what_buildah_cannot_do_is_said() -> None:
    with pytest.raises(commands.ImageError, match="ENGINE=podman"):
        commands.sqsh_command("buildah", "x", Path("y"))
    with pytest.raises(commands.ImageError, match="ENGINE=podman"):
        commands.export_commands("buildah", "x")


def test_an_export_for_charliecloud() -> None:
    export, remove = commands.export_commands("podman", "c0ffee")
    assert (" ".join(export), " ".join(remove)) == ("podman export c0ffee", "podman rm c0ffee")
    unpack = " ".join(commands.unpack_command(Path("/o/train")))
    assert unpack == "tar --extract --preserve-permissions --no-same-owner --exclude=dev/* --directory /o/train"


def test_a_base_keeps_no_source_of_packages() -> None:
    command = commands.base_command(
        "bookworm", [Path("/etc/apt/sources.list")], ["python3", "tini"], Path("/t/base.tar")
    )
    assert command[-3:] == ["bookworm", "/t/base.tar", "/etc/apt/sources.list"]
    assert "--include=python3,tini" in command
    assert any("rm -rf" in word and "/etc/apt/sources.list.d/*" in word for word in command)


def test_only_the_distributions_own_archive_is_taken() -> None:
    files = {
        Path("debian.sources"): "Types: deb\nURIs: http://a\nSuites: bookworm bookworm-updates\nComponents: main\n",
        Path("docker.list"): "deb http://b bookworm stable\n",
        Path("node.sources"): "Types: deb\nSuites: nodistro\nComponents: main\n",
        Path("old.list"): "deb http://a bullseye main\n# deb http://a bookworm main\n",
        Path("sources.list"): "deb http://a bookworm main contrib\n",
    }
    assert [path.name for path in commands.apt_sources(files, "bookworm")] == ["debian.sources", "sources.list"]


def test_every_program_has_a_way_to_get_it() -> None:
    for program in (*commands.ENGINES, "mmdebstrap", "apptainer", "enroot"):
        assert commands.PACKAGES[program]
