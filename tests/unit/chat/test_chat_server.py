"""What the server of the page lets through: the page, to those who may; no API, no file, no large body."""

from __future__ import annotations

import socket

import pytest
from fastapi.testclient import TestClient

from lmbatch.chat.options import ChatOptions
from lmbatch.chat.page import message, plain_text
from lmbatch.chat.server import build_app, run_chat
from lmbatch.chat.shield import is_closed
from lmbatch.errors import UsageError
from lmbatch.infer import load_for_generation
from lmbatch.infer.batching import GenerationQueue
from support.tiny_export import write_export


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("server") / "export")


@pytest.fixture(scope="module")
def queue(folder):
    with GenerationQueue(load_for_generation(folder)) as started:
        yield started


@pytest.fixture(scope="module")
def client(queue, folder):
    with TestClient(build_app(queue, folder, ChatOptions())) as found:
        yield found


def test_the_page_names_no_function_and_asks_nobody_else(client):
    page = client.get("/")
    assert page.status_code == 200
    config = client.get("/config").json()
    assert [part["api_visibility"] for part in config["dependencies"]] == ["private"] * len(config["dependencies"])
    assert config["analytics_enabled"] is False
    assert client.get("/theme.css").status_code == 200
    assert "http" not in client.get("/theme.css").text.replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/info", "/gradio_api/file=/etc/passwd", "/gradio_api/proxy=http://127.0.0.1/", "/docs", "/monitoring",
     "/openapi.json", "/gradio_api/openapi.json", "/gradio_api/runs", "/info"],
)  # fmt: skip
def test_what_the_page_has_no_use_for_is_not_there(client, path):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["upload", "run/predict", "api/predict", "call/begin", "component_server"])
def test_functions_and_files_are_no_api(client, path):
    for prefix in ("/gradio_api/", "/"):
        assert client.post(prefix + path, json={"data": []}).status_code == 404
    assert is_closed("/gradio_api/file=/etc/passwd")
    assert not is_closed("/gradio_api/queue/join")


def test_a_body_is_bounded(client):
    much = b"x" * (65_536 + 8 * ChatOptions().prompt_characters * 50 + 1)
    assert client.post("/gradio_api/queue/join", content=much).status_code == 413
    assert client.post("/gradio_api/queue/join", content=iter([b"{}"])).status_code == 411


def test_health_is_told(client):
    assert client.get("/healthz").json() == {"status": "ok", "running": 0, "waiting": 0}


def test_with_a_login_nothing_is_shown_before_it(queue, folder):
    app = build_app(queue, folder, ChatOptions(login=("team", "天")))
    with TestClient(app) as client:
        assert client.get("/config").status_code == 401
        assert "tiny_zh" not in client.get("/").text
        assert client.post("/gradio_api/queue/join", json={}).status_code == 401
        assert client.post("/login", data={"username": "team", "password": "x"}).status_code == 400
        assert client.post("/login", data={"username": "team", "password": "天"}).status_code == 200
        assert "tiny_zh" in client.get("/").text
        assert client.get("/healthz").status_code == 200


def test_what_a_model_writes_stays_text():
    text = '<img src="http://192.0.2.1/x">&amp; "丁" \n'
    shown = message("assistant", text)
    assert "<" not in shown["content"]
    assert plain_text(shown) == text
    assert plain_text({"role": "assistant", "content": [{"type": "text", "text": shown["content"]}]}) == text


def test_a_port_that_is_taken_is_named(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"127.0.0.1:{port}"):
            run_chat(folder, ChatOptions(port=port), print)


def test_a_folder_that_is_no_model_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no exported model"):
        run_chat(tmp_path, ChatOptions(port=0), print)
