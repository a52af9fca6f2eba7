"""The images themselves, built of this tree: what is in them, what is not, and that they work for whoever runs them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import tarfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lmbatch.infer import export_model
from lmbatch.train import train
from support.container_image import TestImage, container_image
from support.scripts import ROOT, docker_module
from support.tiny_corpus import write_corpus, write_tokenizer
from support.tiny_run import tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STRANGER = ("--user", "4242:4243")  # whoever an HPC site says the user is
TARGETS = ("preprocess", "train", "serve")


@pytest.fixture(scope="module", params=TARGETS)
def image(request: pytest.FixtureRequest) -> TestImage:
    return container_image(request.param)


@pytest.fixture(scope="module")
def preprocess_image() -> TestImage:
    return container_image("preprocess")


@pytest.fixture(scope="module")
def train_image() -> TestImage:
    return container_image("train")


def config_of(image: TestImage) -> dict[str, Any]:
    return json.loads(image.podman("image", "inspect", image.tag).stdout)[0]["Config"]


def test_it_is_what_it_says(image: TestImage) -> None:
    labels = config_of(image)["Labels"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    prefix = "org.opencontainers.image"
    assert labels[f"{prefix}.version"] == version
    assert labels[f"{prefix}.revision"] == docker_module("images").revision()
    assert labels[f"{prefix}.title"] == f"lmbatch {image.target}"
    assert image.run("lmbatch", "--version").stdout.split() == ["lmbatch,", "version", version]


def test_everything_that_its_target_needs_can_be_imported(image: TestImage) -> None:
    done = image.run("lmbatch", "doctor", "--imports", image.target, "--json", options=STRANGER)
    rows = {row["what"]: row for row in json.loads(done.stdout)}
    assert all(row["right"] for row in rows.values())
    assert ("torch" in rows) == (image.target != "preprocess")


def test_its_code_is_that_of_this_tree(image: TestImage) -> None:
    script = (
        "import hashlib, json, lmbatch, pathlib\n"
        "root = pathlib.Path(lmbatch.__file__).parent\n"
        "print(json.dumps({str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()"
        " for p in root.rglob('*.py')}))"
    )
    inside = json.loads(image.run("python", "-c", script).stdout)
    source = ROOT / "src" / "lmbatch"
    assert inside == {
        str(path.relative_to(source)): hashlib.sha256(path.read_bytes()).hexdigest() for path in source.rglob("*.py")
    }


def test_it_runs_as_an_ordinary_user(image: TestImage) -> None:
    assert config_of(image)["User"] == "10001:10001"
    assert image.run("id", "-u").stdout.strip() == "10001"


def test_whoever_runs_it_has_writable_caches(image: TestImage) -> None:
    names = ("HOME", "XDG_CACHE_HOME", "HF_HOME", "TORCH_EXTENSIONS_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR",
             "MPLCONFIGDIR")  # fmt: skip
    script = (
        "import os, pathlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    folder = pathlib.Path(os.environ[name])\n"
        "    folder.mkdir(parents=True, exist_ok=True)\n"
        "    (folder / 'probe').write_text(name)\n"
        "for folder in ('/work', '/work/data', '/work/runs'):\n"
        "    (pathlib.Path(folder) / 'probe').write_text(folder)\n"
    )
    image.run("python", "-c", script, *names, options=STRANGER)


def test_signals_and_exit_codes_reach_the_process(preprocess_image: TestImage) -> None:
    script = "from signal import *; signal(SIGTERM, lambda *_: exit(75)); print('up', flush=True); pause()"
    with preprocess_image.started("python", "-c", script) as name:
        wait_until(lambda: "up" in preprocess_image.podman("logs", name).stdout)
        preprocess_image.podman("kill", "--signal", "TERM", name)
        assert preprocess_image.podman("wait", name).stdout.strip() == "75"


def test_there_is_no_torch_where_none_is_needed(preprocess_image: TestImage) -> None:
    done = preprocess_image.run("python", "-c", "import torch", check=False)
    assert done.returncode == 1
    assert "No module named 'torch'" in done.stderr


def test_torch_is_the_pinned_one(train_image: TestImage) -> None:
    pins = docker_module("lock_requirements").read_constraints((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    found = train_image.run("python", "-c", "import torch; print(torch.__version__)").stdout.strip()
    assert found.partition("+")[0] == pins["torch"]
    train_image.run("sha256sum", "--check", "/opt/lmbatch/torch.sha256")


def layers(image: TestImage, folder: Path) -> Iterator[tuple[str, tarfile.TarInfo, bytes]]:
    """Every file of every layer, those that a later layer hides as well; contents of small ones."""
    archive = folder / f"{image.target}.tar"
    image.podman("save", "--quiet", "--format", "docker-archive", "--output", str(archive), image.tag)
    with tarfile.open(archive) as outer:
        for layer in json.load(outer.extractfile("manifest.json"))[0]["Layers"]:  # type: ignore[arg-type]
            with tarfile.open(fileobj=outer.extractfile(layer)) as inner:
                for member in inner:
                    small = member.isfile() and member.size < 2**20
                    yield layer, member, inner.extractfile(member).read() if small else b""  # type: ignore[union-attr]
    archive.unlink()


def test_nothing_of_the_builder_stays_in_a_layer(preprocess_image: TestImage, tmp_path: Path) -> None:
    borrowed = docker_module("build_host").borrow(os.environ, Path.home())
    certificates = borrowed.ca.read_bytes() if borrowed.ca else b"no certificates"
    private = [re.escape(line.partition("=")[2].strip()) for line in borrowed.pip_conf.splitlines() if "url" in line]
    pattern = re.compile("|".join(filter(None, private)).encode() or rb"no index at all")
    known = re.compile(rb"AWS_SECRET_ACCESS_KEY=|-----BEGIN (RSA |EC |OPENSSH )?PRIVATE KEY-----\n[A-Za-z0-9+/]{40}")
    folders = tuple(f"{str(path).lstrip('/')}/" for path in borrowed.folders)
    own_bundle = 0
    for layer, member, content in layers(preprocess_image, tmp_path):
        name = member.name
        assert not name.endswith(("pip.conf", ".netrc", ".pypirc", "credentials")), (layer, name)
        assert not name.startswith(("run/secrets/", "root/.config/", "root/.cache/", "work/data/", *folders)), (
            layer,
            name,
        )
        assert not pattern.search(content), (layer, name)
        assert not known.search(content), (layer, name)
        own_bundle += name == "etc/ssl/certs/ca-certificates.crt"
        if len(certificates) > 1000 and name != "etc/ssl/certs/ca-certificates.crt":
            assert certificates not in content, (layer, name)
    assert own_bundle == 1  # that of the base, and no layer has changed it


def test_the_history_names_no_index(image: TestImage) -> None:
    history = image.podman("history", "--no-trunc", "--format", "{{.CreatedBy}}", image.tag).stdout
    assert not re.search(r"://(?!127\.0\.0\.1)", history)
    assert "VERSION=" in history  # so this is the history indeed


def test_a_corpus_becomes_shards_inside(preprocess_image: TestImage, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    texts = [{"uniqueKey": str(number), "content": "一二三四五" * (number + 1)} for number in range(40)]
    (raw / "part.json").write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    write_tokenizer(tmp_path / "tokenizer")
    config = {
        "corpus": {"name": "tiny", "format": "json_array", "raw": "/work/in/raw", "include": ["*.json"],
                   "text_fields": ["content"], "id_field": "uniqueKey"},
        "tokenizer": {"path": "/work/in/tokenizer"}, "store": "/work/out/store",
    }  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(json.dumps(config), encoding="utf-8")
    out = tmp_path / "out"
    out.mkdir(mode=0o777)
    out.chmod(0o777)
    tmp_path.chmod(0o755)
    options = (*STRANGER, f"--volume={tmp_path}:/work/in:ro", f"--volume={out}:/work/out")
    done = preprocess_image.run("lmbatch", "preprocess", "--config", "/work/in/tiny.yaml", "--json", options=options)
    assert json.loads(done.stdout)["ledger"]["records"] == 40, done.stdout
    preprocess_image.run("lmbatch", "verify", "/work/out/store", options=options)
    assert (out / "store" / "manifest.json").stat().st_uid == 4242


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported folder of a model that was trained for ten steps."""
    folder = tmp_path_factory.mktemp("served")
    train(tiny_config(write_corpus(folder / "store"), folder, run={"name": "tiny"}, steps=10))
    target = folder / "model"
    export_model(folder / "tiny", target)
    for path in (folder, target, *target.iterdir()):  # the container's user is another one
        path.chmod(0o755)
    return target


def test_the_service_says_that_it_is_healthy(model: Path) -> None:
    image = container_image("serve")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    health = f"--env=LMBATCH_HEALTH_URL=http://127.0.0.1:{port}/healthz"
    options = (f"--volume={model}:/work/model:ro", health, *STRANGER)
    with image.started("lmbatch", "serve", "/work/model", "--port", str(port), options=options) as name:
        wait_until(lambda: image.podman("healthcheck", "run", name, check=False).returncode == 0)
        image.podman("kill", "--signal", "TERM", name)
        assert image.podman("wait", name).stdout.strip() == "0"
        assert image.podman("healthcheck", "run", name, check=False).returncode != 0


def wait_until(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
