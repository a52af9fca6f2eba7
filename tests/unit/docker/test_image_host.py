"""What a build borrows from its machine, and the settings of podman where its defaults do not start."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from support.scripts import docker_module

build_host = docker_module("build_host")
podman_conf = docker_module("podman_conf")
charliecloud = docker_module("charliecloud")


def pip_conf(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_pips_files_are_read_in_its_order(tmp_path: Path) -> None:
    low = pip_conf(tmp_path / "low", "[global]\nindex-url = https://low/simple\ntimeout = 3\n")
    high = pip_conf(tmp_path / "high", "[global]\nindex_url = https://high/simple\n[install]\nno-index = true\n")
    options = build_host.pip_options([low, tmp_path / "absent", high], {"PIP_TIMEOUT": "9", "PATH": "x"})
    assert options == {"index-url": "https://high/simple", "timeout": "9", "no-index": "true"}


def test_where_pip_looks() -> None:
    files = build_host.config_files(
        {"XDG_CONFIG_DIRS": "/a:/b", "XDG_CONFIG_HOME": "/c", "PIP_CONFIG_FILE": "/d"}, Path("/home/u")
    )
    expected = "/a/pip/pip.conf /b/pip/pip.conf /etc/pip.conf /home/u/.pip/pip.conf /c/pip/pip.conf /d"
    assert " ".join(map(str, files)) == expected


def test_what_the_build_reads(tmp_path: Path) -> None:
    options = {
        "extra-index-url": "\nhttps://a/simple\nhttps://b/simple", "constraint": "/secret/place", "cert": "/etc/my.pem",
        "target": "/elsewhere",
    }  # fmt: skip
    text = build_host.render_pip_conf(options, with_ca=True)
    assert text == "[global]\nextra-index-url = https://a/simple https://b/simple\ncert = /run/secrets/ca.crt\n"
    certificates = pip_conf(tmp_path / "ca.pem", "-")
    assert build_host.ca_bundle({"cert": "/no/such"}, {"SSL_CERT_FILE": str(certificates)}) == certificates


def test_folders_that_are_indexes(tmp_path: Path) -> None:
    for name in ("wheels", "index/simple", "a b"):
        (tmp_path / name).mkdir(parents=True)
    options = {
        "find-links": f"{tmp_path}/wheels {tmp_path}/absent https://host/links",
        "extra-index-url": f"file://{tmp_path}/index/simple file://{tmp_path}/a%20b",
    }
    found = build_host.local_folders(options)
    assert found == (tmp_path / "a b", tmp_path / "index", tmp_path / "wheels")


GUEST = podman_conf.Machine(
    root=True, systemd=False, may_raise_limits=False, files=-1, processes=-1, most_processes=4096, runc="/usr/sbin/runc"
)


def test_settings_only_where_they_are_needed() -> None:
    assert podman_conf.needed(GUEST)
    assert not podman_conf.needed(replace(GUEST, systemd=True, may_raise_limits=True))
    assert not podman_conf.needed(replace(GUEST, root=False))


def test_limits_stay_below_what_the_machine_has() -> None:
    assert 'default_ulimits = ["nofile=1048576:1048576", "nproc=4096:4096"]' in podman_conf.containers_conf(GUEST)
    small = podman_conf.containers_conf(replace(GUEST, files=1024, processes=99))
    assert 'default_ulimits = ["nofile=1024:1024", "nproc=99:99"]' in small
    assert "ulimits" not in podman_conf.containers_conf(replace(GUEST, may_raise_limits=True))


def test_runc_only_where_it_is() -> None:
    assert 'runc = ["/usr/sbin/runc"]' in podman_conf.containers_conf(GUEST)
    assert "runc" not in podman_conf.containers_conf(replace(GUEST, runc=None))


def test_the_files_are_written_once_and_the_users_own_win(tmp_path: Path) -> None:
    made = podman_conf.podman_environment(tmp_path, GUEST, {})
    before = (tmp_path / "containers.conf").stat().st_mtime_ns
    assert podman_conf.podman_environment(tmp_path, GUEST, {}) == made
    assert (tmp_path / "containers.conf").stat().st_mtime_ns == before
    assert f'graphroot = "{tmp_path}/storage"' in Path(made["CONTAINERS_STORAGE_CONF"]).read_text(encoding="utf-8")
    assert podman_conf.podman_environment(tmp_path, GUEST, {"CONTAINERS_CONF": "mine"}) == {}


def test_a_folder_for_charliecloud(tmp_path: Path) -> None:
    environment = ["PATH=/opt/lmbatch/bin:/bin", "A=b=c", "HOME=/var/cache/lmbatch"]
    inspected = json.dumps(
        [{"Id": "c0ffee", "Config": {"Env": environment, "WorkingDir": "/work", "Labels": {"v": "1"}}}]
    )
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").symlink_to("/nowhere/at/all")
    image = charliecloud.Image.parse(inspected)
    assert not charliecloud.is_of(tmp_path, image)
    charliecloud.complete(tmp_path, image)
    assert charliecloud.is_of(tmp_path, image)
    assert not charliecloud.is_of(tmp_path, replace(image, identity="other"))
    assert (tmp_path / "ch/environment").read_text(encoding="utf-8") == "PATH=/opt/lmbatch/bin:/bin\nA=b=c\n"
    assert all((tmp_path / f"mnt/{number}").is_dir() for number in range(10))
    assert (tmp_path / "etc/resolv.conf").is_file()
    assert '"v": "1"' in (tmp_path / "ch/metadata.json").read_text(encoding="utf-8")
