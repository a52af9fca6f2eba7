"""What keeps work from running in a container is told before it is queued, or by the node, each with its remedy."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lmbatch import __version__
from lmbatch.config import ContainerSite
from lmbatch.errors import ContainerError
from lmbatch.launch.container import ContainerWork
from lmbatch.launch.image_check import ImageFacts, check_container, check_facts, check_mounts, image_facts

MACHINE = {"x86_64": 0x3E, "aarch64": 0xB7}
OTHER = next(name for name in MACHINE if name != platform.machine())


def site(runtime: str, image: Path | str, **more: object) -> ContainerSite:
    return ContainerSite.model_validate({"runtime": runtime, "image": str(image), **more})


def elf(machine: str) -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(9) + (3).to_bytes(2, "little") + MACHINE[machine].to_bytes(2, "little")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image as a folder, of this machine and this version."""
    image = tmp_path / "image"
    (image / f"opt/lmbatch/lib/python3.11/site-packages/lmbatch-{__version__}.dist-info").mkdir(parents=True)
    (image / "usr/bin").mkdir(parents=True)
    (image / "usr/bin/env").write_bytes(elf(platform.machine()))
    (image / "ch").mkdir()
    (image / "ch/environment").write_text("PATH=/opt/lmbatch/bin:/usr/bin:/bin\n", encoding="utf-8")
    return image


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes a program of that name the only thing on PATH besides the system's shell."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def write(name: str, body: str) -> None:
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)

    return write


@pytest.fixture
def work(tmp_path: Path) -> ContainerWork:
    return ContainerWork(cwd=tmp_path, written=(tmp_path / "runs",), caches=(("XDG_CACHE_HOME", tmp_path / "cache"),))


def test_a_good_folder_is_prepared_and_passes(folder: Path, work: ContainerWork, programs) -> None:
    programs("ch-run", "")
    outside = replace(work, folders=(Path("/usr/share"),))
    check_container(site("charliecloud", folder), outside)
    assert (folder / "usr/share").is_dir()  # where ch-run will mount it
    assert (folder / "etc/hosts").is_file()  # or the node's would not be mounted, and the nodes not found
    assert work.written[0].is_dir()
    assert image_facts(site("charliecloud", folder)) == ImageFacts(__version__, platform.machine())


@pytest.mark.parametrize("runtime", ["pyxis", "apptainer", "charliecloud", "podman", "docker"])
def test_a_missing_runtime(runtime: str, folder: Path, work: ContainerWork, programs) -> None:
    programs("srun", "echo usage")  # an srun without the plugin
    with pytest.raises(ContainerError, match=f"container.runtime is {runtime}, and .* is not there on"):
        check_container(site(runtime, folder), work)
    check_container(site(runtime, folder), work, on_node=False)  # a login node need not have it


@pytest.mark.parametrize(
    ("runtime", "remedy"), [("charliecloud", "image-dir"), ("apptainer", "image-sif"), ("pyxis", "image-sqsh")]
)
def test_a_missing_image(runtime: str, remedy: str, work: ContainerWork, programs) -> None:
    programs({"charliecloud": "ch-run", "pyxis": "srun"}.get(runtime, runtime), "echo --container-image")
    with pytest.raises(ContainerError, match="there is no such image") as caught:
        check_container(site(runtime, "/no/such/image.sqsh"), work)
    assert f"make {remedy}" in str(caught.value)


def test_a_missing_image_of_an_engine(work: ContainerWork, programs) -> None:
    programs("podman", "echo 'Error: lmbatch:train: image not known' >&2; exit 125")
    with pytest.raises(
        ContainerError, match=r"podman knows no such image on .* \(Error: lmbatch:train: image not known\)"
    ):
        check_container(site("podman", "lmbatch:train"), work)


def test_an_image_of_another_architecture(folder: Path, work: ContainerWork, programs) -> None:
    programs("ch-run", "")
    (folder / "usr/bin/env").write_bytes(elf(OTHER))
    with pytest.raises(ContainerError, match=f"the image is for {OTHER}, and this machine is {platform.machine()}"):
        check_container(site("charliecloud", folder), work)


def test_an_image_with_another_version(folder: Path, work: ContainerWork, programs) -> None:
    programs("ch-run", "")
    installed = folder / "opt/lmbatch/lib/python3.11/site-packages"
    (installed / f"lmbatch-{__version__}.dist-info").rename(installed / "lmbatch-9.8.7.dist-info")
    with pytest.raises(ContainerError, match=rf"holds lmbatch 9\.8\.7, and the host has lmbatch {__version__}"):
        check_container(site("charliecloud", folder), work)
    check_container(
        site("charliecloud", folder, code=True), work
    )  # the host's code runs, so there is nothing to compare


def inspected(version: str | None, architecture: str) -> str:
    labels = {"org.opencontainers.image.version": version} if version else None
    return json.dumps([{"Architecture": architecture, "Config": {"Labels": labels}}])


def test_what_an_engine_says_of_its_image(programs) -> None:
    programs("docker", f"echo '{inspected('1.2.3', 'arm64')}'")
    assert image_facts(site("docker", "lmbatch:train")) == ImageFacts("1.2.3", "aarch64")


def test_an_image_without_a_label_is_asked_itself(programs) -> None:
    programs("podman", f"[ $1 = run ] && echo 4.5.6 || echo '{inspected(None, 'amd64')}'")
    assert image_facts(site("podman", "lmbatch:train")) == ImageFacts("4.5.6", "x86_64")


def test_what_apptainer_says_of_its_image(tmp_path: Path, programs) -> None:
    labels = {"org.opencontainers.image.version": "1.2.3", "org.label-schema.build-arch": "amd64"}
    programs("apptainer", f"echo '{json.dumps({'data': {'attributes': {'labels': labels}}})}'")
    (tmp_path / "train.sif").touch()
    assert image_facts(site("apptainer", tmp_path / "train.sif")) == ImageFacts("1.2.3", "x86_64")


@pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="this machine has no mksquashfs: install squashfs-tools")
def test_the_version_in_a_squashfs_file(folder: Path, tmp_path: Path) -> None:
    subprocess.run(["mksquashfs", folder, tmp_path / "train.sqsh", "-quiet"], check=True, capture_output=True)
    assert image_facts(site("pyxis", tmp_path / "train.sqsh")).version == __version__


def test_what_is_not_known_is_not_refused() -> None:
    check_facts(ImageFacts(None, None), site("pyxis", "registry.example#nvidia/pytorch:26.01-py3"))
    assert image_facts(site("pyxis", "registry.example#nvidia/pytorch:26.01-py3")) == ImageFacts(None, None)


def test_a_mount_that_is_not_there(folder: Path, work: ContainerWork, programs) -> None:
    programs("ch-run", "")
    with pytest.raises(ContainerError, match="/no/such/corpus: is to be mounted into the container, and is not there"):
        check_container(site("charliecloud", folder), replace(work, folders=(Path("/no/such/corpus"),)))


def as_nobody(check: Callable[[], None]) -> str:
    """What the check says to a user without rights, whoever runs the tests."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setresuid(65534, 65534, 65534)
            check()
        except ContainerError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, encoding="utf-8") as pipe:
        return pipe.read()


def test_a_folder_that_may_not_be_written_to() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders nobody else may enter
        closed = Path(name) / "runs"
        closed.mkdir(mode=0o555)
        Path(name).chmod(0o755)
        work = ContainerWork(cwd=Path(name), written=(closed,))
        said = as_nobody(lambda: check_mounts(site("podman", "i"), work))
        assert f"{closed}: user " in said
        assert "may not write here, and the work in the container has to" in said
        new = replace(work, written=(closed / "demo",))
        assert "cannot be made, and the container needs it" in as_nobody(lambda: check_mounts(site("podman", "i"), new))


def test_too_little_shared_memory(folder: Path, work: ContainerWork, programs) -> None:
    programs("ch-run", "")
    with pytest.raises(
        ContainerError, match=r"/dev/shm of .* holds \d+ MiB, and container.shm asks for 1073741824 MiB"
    ):
        check_container(site("charliecloud", folder, shm=2**50), work)
    check_container(site("charliecloud", folder, shm=2**50), work, on_node=False)  # a login node's says nothing


def test_what_charliecloud_cannot_do(folder: Path, tmp_path: Path, work: ContainerWork, programs) -> None:
    programs("ch-run", "")
    with pytest.raises(ContainerError, match="cannot mount read-only"):
        check_container(site("charliecloud", folder, mounts=[f"{tmp_path}:/data:ro"]), work)
    (folder / "ch/environment").unlink()
    with pytest.raises(ContainerError, match="no file ch/environment"):
        check_container(site("charliecloud", folder), work)
    (tmp_path / "train.sqfs").touch()
    with pytest.raises(ContainerError, match="must be a folder"):
        check_container(site("charliecloud", tmp_path / "train.sqfs"), work)
