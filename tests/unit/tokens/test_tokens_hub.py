"""Tokenizers by their name on the hub, from a server that speaks its interface, and without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lmbatch.preprocess import make_plan
from lmbatch.tokens import load_tokenizer
from lmbatch.tokens.hub import HubName, hub_name
from support.hub_server import COMMIT, TOKEN, HubServer
from support.wudao import config_for, write_files, write_tokenizer

Show = Callable[..., subprocess.CompletedProcess[str]]
NOBODY = "http://127.0.0.1:9"  # the port of the discard service, where nothing listens


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_tokenizer(tmp_path / "tok")
    (folder / "model.safetensors").write_bytes(b"large")
    return folder


@pytest.fixture
def hub(folder: Path) -> Iterator[HubServer]:
    with HubServer(folder) as hub:
        yield hub


@pytest.fixture
def show(tmp_path: Path) -> Show:
    """`lmbatch tokenizer show` in a process of its own: the library reads its variables when it is imported."""

    def call(name: str, endpoint: str, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        home = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": endpoint, "HOME": str(tmp_path)}
        command = [sys.executable, "-m", "lmbatch", "tokenizer", "show", name, "--json"]
        return subprocess.run(
            command, capture_output=True, text=True, env={**kept, **home, **variables}, cwd=tmp_path, check=False
        )

    return call


def test_what_can_be_a_name() -> None:
    assert hub_name("Qwen/Qwen2-0.5B") == HubName("Qwen/Qwen2-0.5B", None)
    assert hub_name("Qwen/Qwen2-0.5B@v1.0") == HubName("Qwen/Qwen2-0.5B", "v1.0")
    assert hub_name("Org/Name@refs/pr/1") == HubName("Org/Name", "refs/pr/1")
    for path in ("gpt2", "/data/tok", "./tok/x", "../tok", "data/tokenizers/demo_bpe", "~/tok", "a/b@", "中文/名"):
        assert hub_name(path) is None, path


def test_a_folder_here_goes_before_a_name_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent.parent)
    path = f"{folder.parent.name}/tok"
    assert load_tokenizer(path).origin is None


def test_only_the_tokenizer_is_fetched_and_only_once(hub: HubServer, folder: Path, show: Show) -> None:
    shown = show("Org/Name", hub.endpoint)
    assert shown.returncode == 0, shown.stderr
    facts = json.loads(shown.stdout)
    assert facts["hub"] == f"Org/Name@{COMMIT}"
    assert facts["fingerprint"] == load_tokenizer(folder).fingerprint
    assert sorted(hub.fetched) == ["tokenizer.json", "tokenizer_config.json"]
    assert json.loads(show("Org/Name@v1", hub.endpoint).stdout)["hub"] == f"Org/Name@{COMMIT}"
    offline = show("Org/Name", hub.endpoint, HF_HUB_OFFLINE="1")
    assert json.loads(offline.stdout)["fingerprint"] == facts["fingerprint"]
    gone = show("Org/Name", NOBODY)
    assert json.loads(gone.stdout)["hub"] == facts["hub"]
    assert len(hub.fetched) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Org/Nothing", "no repository on the hub"),
        ("Org/Name@v2", "no such revision"),
        ("Org/Gated", "gated"),
    ],
)
def test_what_the_hub_refuses(hub: HubServer, show: Show, name: str, words: str) -> None:
    wrong = "hf_" + "w" * 34
    refused = show(name, hub.endpoint, HF_TOKEN=wrong)
    assert refused.returncode == 1
    assert words in refused.stderr
    assert "remedy:" in refused.stderr
    assert wrong not in refused.stderr + refused.stdout
    assert "Traceback" not in refused.stderr


def test_a_token_opens_what_is_gated(hub: HubServer, show: Show) -> None:
    shown = show("Org/Gated", hub.endpoint, HF_TOKEN=TOKEN)
    assert shown.returncode == 0, shown.stderr
    assert TOKEN not in shown.stdout + shown.stderr


@pytest.mark.parametrize("variables", [{}, {"HF_HUB_OFFLINE": "1"}], ids=["no server", "offline"])
def test_without_a_hub_the_ways_out_are_named(show: Show, variables: dict[str, str]) -> None:
    refused = show("Org/Name", NOBODY, **variables)
    assert refused.returncode == 1
    assert "Org/Name: is no folder here, not in the hub's cache, and the hub cannot be reached" in refused.stderr
    assert "HF_HOME" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_missing_segmenter_stops_the_plan(tmp_path: Path) -> None:
    write_files(tmp_path / "raw")
    folder = write_tokenizer(tmp_path / "tok")
    (folder / "segmentation.json").write_text('{"segmenter": "jieba", "version": "0.0.1"}', encoding="utf-8")
    with pytest.raises(Exception, match="segmented by jieba 0.0.1"):
        make_plan(config_for(tmp_path))
