"""The application without a socket: what it answers, and what it refuses in which words."""

from __future__ import annotations

import json
import logging
import re

import pytest
from starlette.testclient import TestClient

from lmbatch.config import GenerateConfig, ServeConfig
from lmbatch.errors import ConfigError, UsageError
from lmbatch.infer import TextGenerator
from lmbatch.infer.batching import GenerationQueue
from lmbatch.infer.http import Service, create_app, read_api_key
from lmbatch.infer.http.metrics import HttpMetrics

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def generator(model, tokenizer_folder):
    return TextGenerator(model, tokenizer_folder, context=48)


@pytest.fixture(scope="module")
def client(generator):
    with client_of(generator) as client:
        yield client


def client_of(generator: TextGenerator, *, api_key: str | None = None, **config: object):
    """A client of an application; its queue has begun, and ends with the test session."""
    queue = GenerationQueue(generator)
    queue.start()
    service = Service(queue, ServeConfig(**config), "demo", 1, HttpMetrics())
    client = TestClient(create_app(service, api_key=api_key), raise_server_exceptions=False)
    client.queue = queue
    return client


def test_the_seeds_endpoint(client, generator):
    response = client.post("/", json={"context": "第一条", "maxlength": 12, "samples": 5})
    texts = response.json()
    assert response.status_code == 200
    assert len(texts) == 5
    assert all(text.startswith("第一条") for text in texts)
    assert "第一条" in response.text  # Chinese stays Chinese, also on the wire
    greedy = client.post("/", json={"context": "第一条", "maxlength": 12, "temperature": 0}).json()
    assert greedy == generator.generate(["第一条"], GenerateConfig(max_new_tokens=12, temperature=0))


def test_seeds_repeat_and_their_absence_does_not(client):
    def draw(**more):
        return client.post("/", json={"context": "国", "samples": 3, "maxlength": 20, "temperature": 3.0} | more).json()

    assert draw(seed=1) == draw(seed=1)
    assert draw(seed=1) != draw(seed=2)
    assert draw() != draw()


def test_the_services_own_settings_hold_where_a_request_says_nothing(generator):
    cold = client_of(generator, temperature=0.0)
    assert len({cold.post("/", json={"context": "国", "maxlength": 12}).text for _ in range(4)}) == 1


def completion(client, **body):
    return client.post("/v1/completions", json={"prompt": "第一条", "max_tokens": 12, "temperature": 0} | body).json()


def test_a_completion_in_openais_words(client, generator):
    answer = completion(client, prompt=["第一条", "国家"], n=2, echo=True)
    greedy = GenerateConfig(max_new_tokens=12, temperature=0)
    expected = [text for text in generator.generate(["第一条", "国家"], greedy) for _ in range(2)]
    assert [choice["text"] for choice in answer["choices"]] == expected
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    prompt_tokens = sum(len(generator.window(prompt, 1).ids) for prompt in ("第一条", "国家"))
    usage = answer["usage"]
    assert usage["prompt_tokens"] == prompt_tokens
    assert usage["total_tokens"] == prompt_tokens + usage["completion_tokens"]
    assert re.fullmatch(r"cmpl-[0-9a-f]{24}", answer["id"])


@pytest.mark.parametrize("echo", [False, True])
def test_a_stream_says_the_same_piece_by_piece(client, echo):
    body = {"n": 2, "temperature": 2.0, "seed": 4, "echo": echo, "max_tokens": 30}
    whole = completion(client, **body)
    lines = client.post(
        "/v1/completions",
        json=body | {"prompt": "第一条", "stream": True, "stream_options": {"include_usage": True}},
    ).text.split("\n\n")
    *events, done, nothing = lines
    assert (done, nothing) == ("data: [DONE]", "")
    parts = [json.loads(event.removeprefix("data: ")) for event in events]
    choices = [choice for part in parts for choice in part["choices"]]
    for expected in whole["choices"]:
        own = [choice for choice in choices if choice["index"] == expected["index"]]
        assert len(own) > 3
        assert "".join(choice["text"] for choice in own) == expected["text"]
        assert own[-1]["finish_reason"] == expected["finish_reason"]
    assert parts[-1]["usage"] == whole["usage"]


def test_a_stop_string_is_not_in_the_text(client):
    text = completion(client)["choices"][0]["text"]
    cut = completion(client, stop=[text[3:5]])["choices"][0]
    assert cut["text"] == text[: text.index(text[3:5])]
    assert cut["finish_reason"] == "stop"


def test_beams_are_asked_for_in_transformers_words(client, generator):
    expected = generator.complete(["第一条"], GenerateConfig(max_new_tokens=12, temperature=0, num_beams=3))
    assert completion(client, num_beams=3)["choices"][0]["text"] == expected[0].continuation


LONG = "法" * 60
BAD = [
    ("/", b"{", 400, "not JSON"),
    ("/", b"", 400, "empty"),
    ("/", b"[]", 400, "object"),
    ("/", b'{"context": "\xff"}', 400, "not UTF-8: byte 13"),
    ("/", rb'{"context": "\ud800"}', 400, "not JSON"),
    ("/", b"[" * 50_000, 400, "not JSON"),
    ("/", {}, 400, "context is missing"),
    ("/", {"context": ""}, 400, "context is empty"),
    ("/", {"context": 5}, 400, "context: Input should be a valid string"),
    ("/", {"context": "国", "maxlenght": 5}, 400, "did you mean maxlength?"),
    ("/", {"context": "国", "maxlength": "5"}, 400, "maxlength: Input should be a valid integer"),
    ("/", {"context": "国", "maxlength": 0}, 400, "maxlength: Input should be greater than 0"),
    ("/", {"context": "国", "maxlength": 9999}, 400, "at most 1024 tokens"),
    ("/", {"context": LONG}, 400, "sees 48 tokens at once"),
    ("/", {"context": "国", "samples": 17}, 400, "at most 16 texts"),
    ("/", {"context": "国", "samples": True}, 400, "valid integer"),
    ("/", b'{"context": "\xe5\x9b\xbd", "temperature": NaN}', 400, "temperature: Input should be a finite number"),
    ("/", b'{"context": "\xe5\x9b\xbd", "temperature": 1e999}', 400, "temperature"),
    ("/", {"context": "国", "temperature": -1}, 400, "temperature"),
    ("/", {"context": "国", "topp": 0}, 400, "topp"),
    ("/", {"context": "国" * 30_000}, 413, "more than 65,536 bytes"),
    ("/v1/completions", {"prompt": [1, 2]}, 400, "token ids are not supported"),
    ("/v1/completions", {"prompt": []}, 400, "a text or a list of texts"),
    ("/v1/completions", {"prompt": ["国"] * 17}, 400, "at most 16 texts"),
    ("/v1/completions", {"prompt": "国", "n": 17}, 400, "n: at most 16 texts"),
    ("/v1/completions", {"prompt": "国", "logprobs": 3}, 400, "logprobs: not supported"),
    ("/v1/completions", {"prompt": "国", "presence_penalty": 0.5}, 400, "presence_penalty: not supported"),
    ("/v1/completions", {"prompt": "国", "best_of": 2}, 400, "best_of"),
    ("/v1/completions", {"prompt": "国", "stop": ["a"] * 5}, 400, "at most 4 stop strings"),
    ("/v1/completions", {"prompt": "国", "stop": ""}, 400, "not empty"),
    ("/v1/completions", {"prompt": "国", "stream_options": {"include_usage": True}}, 400, "only with stream"),
    ("/v1/completions", {"prompt": "国", "model": "gpt-4"}, 404, "this is demo"),
    ("/v1/nothing", {"prompt": "国"}, 404, "not found"),
]


@pytest.mark.parametrize(("path", "body", "status", "words"), BAD, ids=[f"{case[2]} {case[3]}" for case in BAD])
def test_bad_input_is_refused_in_words(client, path, body, status, words):
    data = body if isinstance(body, bytes) else json.dumps(body)
    response = client.post(path, content=data, headers=JSON)
    assert response.status_code == status
    error = response.json()["error"]
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["code"]


def test_another_content_type_or_method_is_refused(client):
    assert client.post("/", content=b'{"context": "a"}').status_code == 415
    assert client.post("/", data={"context": "a"}).status_code == 415
    response = client.get("/")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json()["error"]["code"] == "wrong_method"


def test_without_the_key_nothing_but_health_is_answered(generator):
    client = client_of(generator, api_key="secret-key")
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer secret-key1"},
                   {"Authorization": "secret-key"}, {"Authorization": "Basic secret-key"}):  # fmt: skip
        for method, path in (("POST", "/"), ("POST", "/v1/completions"), ("GET", "/v1/models"), ("GET", "/metrics"),
                             ("GET", "/openapi.json"), ("GET", "/nothing")):  # fmt: skip
            response = client.request(method, path, json={"context": "国", "prompt": "国"}, headers=header)
            assert response.status_code == 401, (path, header)
    assert client.get("/healthz").status_code == 200
    right = client.get("/v1/models", headers={"Authorization": "Bearer secret-key"})
    assert right.json()["data"][0]["id"] == "demo"


def test_health_says_when_the_service_stops(generator):
    client = client_of(generator)
    assert client.get("/healthz").json()["status"] == "ready"
    client.queue.refuse()
    assert client.get("/healthz").status_code == 503
    refused = client.post("/", json={"context": "国", "maxlength": 5})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
    assert refused.headers["retry-after"]


def test_a_text_that_takes_too_long_is_ended(generator):
    client = client_of(generator, max_seconds=0.001)
    late = client.post("/", json={"context": "国", "maxlength": 40})
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline")
    stream = client.post("/v1/completions", json={"prompt": "国", "max_tokens": 40, "stream": True}).text
    assert '"code": "deadline"' in stream
    assert "[DONE]" not in stream


def test_metrics_count_what_was_done(generator):
    client = client_of(generator)
    for _ in range(3):
        client.post("/", json={"context": "第一条", "maxlength": 5, "samples": 2, "temperature": 0})
    client.post("/", json={})
    text = client.get("/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values['lmbatch_requests_total{outcome="done"}'] == "3"
    assert values['lmbatch_http_responses_total{status="200"}'] == "3"
    assert values['lmbatch_http_responses_total{status="400"}'] == "1"
    assert values["lmbatch_generated_tokens_total"] == "30"
    assert values["lmbatch_http_response_seconds_count"] == values['lmbatch_http_response_seconds_bucket{le="+Inf"}']
    families = re.findall(r"^# TYPE (\S+) (?:counter|gauge|histogram)$", text, flags=re.MULTILINE)
    assert len(families) == len(set(families)) == 11


def test_the_log_has_no_prompt_no_query_and_no_forged_line(client, caplog):
    with caplog.at_level(logging.INFO, logger="lmbatch.access"):
        client.post("/", json={"context": "秘密的话", "maxlength": 2})
        client.get("/x%0AGET /forged 200?api_key=hunter2")
    assert "POST / 200" in caplog.text
    assert "秘密" not in caplog.text
    assert "hunter2" not in caplog.text
    assert len([record for record in caplog.records if record.name == "lmbatch.access"]) == 2
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_the_description_names_every_key(client):
    paths = client.get("/openapi.json").json()["paths"]
    described = paths["/"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert {"context", "maxlength", "samples"} <= set(described)


def test_the_key_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("LMBATCH_API_KEY", raising=False)
    assert read_api_key(None) is None
    monkeypatch.setenv("LMBATCH_API_KEY", " from-environment\n")
    assert read_api_key(None) == "from-environment"
    file = tmp_path / "key"
    file.write_text("from-file\n", encoding="utf-8")
    assert read_api_key(file) == "from-file"
    for wrong in ("", "  \n", "two\nlines", "钥匙"):
        file.write_text(wrong, encoding="utf-8")
        with pytest.raises(UsageError, match="no API key"):
            read_api_key(file)
    with pytest.raises(UsageError, match="cannot be read"):
        read_api_key(tmp_path / "nothing")


def test_more_samples_than_places_can_never_be_asked_for():
    with pytest.raises((ConfigError, ValueError), match="max_samples"):
        ServeConfig(rows=4, max_samples=5)
