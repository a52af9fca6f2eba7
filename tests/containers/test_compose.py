"""docker/compose.yaml, read by Docker Compose itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.scripts import ROOT

FOLDER = ROOT / "docker"
PROFILES = ("preprocess", "gpu", "cpu", "serve", "chat")
SECRET = "a-secret-of-the-test"


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Docker Compose makes of it: variables filled in, anchors merged, every key checked by its schema."""
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("this machine has no docker-compose: run `cluster/install.sh docker-compose` as root")
    folder = tmp_path_factory.mktemp("compose") / "docker"
    folder.mkdir()
    shutil.copy(FOLDER / "compose.yaml", folder)
    for name in ("storage", "service"):
        text = (FOLDER / f"{name}.env.example").read_text(encoding="utf-8")
        (folder / f"{name}.env").write_text(
            re.sub(r"^(\w*(?:SECRET|KEY|PASSWORD)\w*)=$", rf"\1={SECRET}", text, flags=re.M)
        )
    profiles = [f"--profile={name}" for name in PROFILES]
    command = [program, "-f", str(folder / "compose.yaml"), *profiles, "config"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)["services"]


def test_every_part_is_there(services: dict[str, Any]) -> None:
    assert set(services) == {"s3", "preprocess", "train", "train-cpu", "serve", "chat"}
    devices = services["train"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    assert "deploy" not in services["train-cpu"]
    assert services["train-cpu"]["command"] == services["train"]["command"]


def test_nobody_else_reaches_a_port(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_ordinary_users_without_capabilities(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["user"] == "10001:10001"
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_secrets_come_from_their_files_alone(services: dict[str, Any]) -> None:
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    assert not re.search(r"(SECRET|PASSWORD|API_KEY)\w*\s*[:=]", text)
    for name, service in services.items():
        mine = {key for key, value in service["environment"].items() if value == SECRET}
        storage = name in ("s3", "preprocess", "train", "train-cpu")
        assert mine == ({"AWS_SECRET_ACCESS_KEY"} if storage else {"LMBATCH_API_KEY", "LMBATCH_CHAT_PASSWORD"})
        assert SECRET not in str(service.get("command"))


def test_git_ignores_the_secrets_and_the_builds_never_see_them() -> None:
    for name in ("docker/storage.env", "docker/service.env"):
        done = subprocess.run(["git", "-C", str(ROOT), "check-ignore", "--quiet", name], check=False)
        assert done.returncode == 0, name
    assert (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()[1] == "*"


def test_images_and_configs_that_it_names_exist(services: dict[str, Any]) -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", (FOLDER / "Dockerfile").read_text(encoding="utf-8"), re.M))
    for service in services.values():
        name, _, target = service["image"].rpartition(":")
        assert name == "localhost/lmbatch"
        assert target in targets
        configs = [word.partition("=")[2] for word in service.get("command", ()) if word.startswith("--config=")]
        assert all((ROOT / Path(config)).is_file() for config in configs)


def test_work_waits_for_the_store_and_may_save_before_it_ends(services: dict[str, Any]) -> None:
    for name in ("preprocess", "train", "train-cpu"):
        assert services[name]["depends_on"]["s3"]["condition"] == "service_healthy"
    assert services["train"]["stop_grace_period"] in ("3m", "3m0s")
