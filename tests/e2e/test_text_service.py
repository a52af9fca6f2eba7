"""`lmbatch serve` as its users meet it: a process, sockets, OpenAI's client, a crowd, and the end."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import psutil
import pytest

from lmbatch.config import GenerateConfig
from lmbatch.infer import load_for_generation
from support.text_service import TextService, write_export

KEY = "key-of-the-test"
ROWS, WAITING = 8, 20
PROMPTS = ["第一条", "国家保护", "话说天下", "人工智能", "Hello", "北京市是中国的"]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(tmp_path_factory.mktemp("export") / "tiny")


@pytest.fixture(scope="module")
def service(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TextService]:
    log = tmp_path_factory.mktemp("service") / "log"
    limits = ["--rows", str(ROWS), "--max-samples", "4", "--waiting", str(WAITING), "--max-connections", "64"]
    with TextService(export, log, *limits, LMBATCH_API_KEY=KEY) as started:
        assert started.url
        yield started


@pytest.fixture(scope="module")
def client(service: TextService) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEY, max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def greedy(export: Path) -> dict[str, str]:
    """What each prompt is continued with for up to 60 tokens, by the plain generator."""
    completions = load_for_generation(export, device="cpu").complete(
        PROMPTS, GenerateConfig(max_new_tokens=60, temperature=0)
    )
    return {completion.prompt: completion.continuation for completion in completions}


def metrics(service: TextService) -> dict[str, float]:
    text = httpx.get(f"{service.url}/metrics", headers={"Authorization": f"Bearer {KEY}"}, timeout=60).text
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in rows}


def outcomes(values: dict[str, float]) -> Counter[str]:
    prefix = 'lmbatch_requests_total{outcome="'
    return Counter({key[len(prefix) : -2]: int(value) for key, value in values.items() if key.startswith(prefix)})


def settled(service: TextService) -> dict[str, float]:
    """Metrics, once nothing waits or runs any more."""
    end = time.monotonic() + 60
    busy = ("lmbatch_requests_waiting", "lmbatch_requests_running", "lmbatch_rows")
    while any((values := metrics(service))[name] for name in busy):
        assert time.monotonic() < end, values
        time.sleep(0.02)
    return values


# ── OpenAI's client ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_completion(client, greedy):
    answer = client.completions.create(model="tiny", prompt=PROMPTS[:2], max_tokens=60, temperature=0, n=2, echo=True)
    expected = [prompt + greedy[prompt] for prompt in PROMPTS[:2] for _ in range(2)]
    assert [choice.text for choice in answer.choices] == expected
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_of_several_samples(client):
    settings: dict[str, Any] = {
        "model": "tiny",
        "prompt": "第一条",
        "max_tokens": 40,
        "temperature": 1.5,
        "seed": 7,
        "n": 3,
    }
    texts = [choice.text for choice in client.completions.create(**settings).choices]
    streamed = ["", "", ""]
    parts = list(client.completions.create(**settings, stream=True, stream_options={"include_usage": True}))
    for part in parts:
        for choice in part.choices:
            streamed[choice.index] += choice.text
            assert "\ufffd" not in choice.text or "\ufffd" in texts[choice.index]
    assert streamed == texts
    assert len(set(texts)) == 3
    assert parts[-1].usage.completion_tokens > 3
    assert len(parts) > 20


def test_stop_and_models(client, greedy):
    stop = greedy["第一条"][6:8]
    choice = client.completions.create(model="tiny", prompt="第一条", max_tokens=60, temperature=0, stop=stop).choices[
        0
    ]
    assert choice.text == greedy["第一条"][: greedy["第一条"].index(stop)]
    assert choice.finish_reason == "stop"
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_errors_arrive_as_the_clients_own(client, service):
    with pytest.raises(openai.BadRequestError, match="n: at most 4 texts") as caught:
        client.completions.create(model="tiny", prompt="国", n=5)
    assert caught.value.param == "n"
    with pytest.raises(openai.NotFoundError, match="this is tiny"):
        client.completions.create(model="another", prompt="国")
    with pytest.raises(openai.BadRequestError, match="logprobs: not supported"):
        client.completions.create(model="tiny", prompt="国", logprobs=1)
    stranger = openai.OpenAI(base_url=f"{service.url}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.completions.create(model="tiny", prompt="国")
    assert httpx.get(f"{service.url}/healthz").json()["status"] == "ready"


# ── a crowd ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Call:
    """One client's request, and whether it hangs up in the middle."""

    number: int

    @property
    def leaves(self) -> bool:
        return self.number % 5 == 4

    @property
    def prompt(self) -> str:
        return PROMPTS[self.number % len(PROMPTS)]

    @property
    def body(self) -> dict[str, Any]:
        if self.number % 3 == 0:
            context: dict[str, Any] = {"context": self.prompt, "maxlength": 40, "samples": 1 + self.number % 2}
            return context | {"temperature": 1.3, "seed": self.number % 7}
        # Those who leave ask for more than there is time for.
        tokens = 200 if self.leaves else 60
        return {"prompt": self.prompt, "max_tokens": tokens, "temperature": 0, "stream": self.number % 3 == 1}

    async def made(self, client: httpx.AsyncClient) -> Any:
        """The text or texts; None for those that left."""
        path = "/" if "context" in self.body else "/v1/completions"
        async with client.stream("POST", path, json=self.body) as response:
            if self.leaves and self.body.get("stream"):
                await anext(response.aiter_bytes())
                return None
            data = (await response.aread()).decode()
            assert response.status_code == 200, data
        if path == "/":
            return json.loads(data)
        if not self.body["stream"]:
            return json.loads(data)["choices"][0]["text"]
        events = [line.removeprefix("data: ") for line in data.split("\n\n") if line]
        assert events.pop() == "[DONE]"
        return "".join(json.loads(event)["choices"][0]["text"] for event in events)

    async def run(self, client: httpx.AsyncClient) -> Any:
        if self.leaves and not self.body.get("stream"):
            try:
                return await asyncio.wait_for(self.made(client), 0.03)
            except TimeoutError:
                return None
        return await self.made(client)


async def crowd(url: str, calls: list[Call], connections: int) -> dict[int, Any]:
    limits = httpx.Limits(max_connections=connections)
    headers = {"Authorization": f"Bearer {KEY}"}
    queue, results = iter(calls), {}
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=60) as client:

        async def worker() -> None:
            for call in queue:
                results[call.number] = await call.run(client)

        await asyncio.gather(*(worker() for _ in range(connections)))
    return results


def test_a_crowd_gets_what_each_would_get_alone(service, greedy):
    alone = asyncio.run(crowd(service.url, [Call(number) for number in range(0, 42, 3) if number % 5 != 4], 1))
    by_body = {json.dumps(Call(number).body): texts for number, texts in alone.items()}
    asyncio.run(crowd(service.url, [Call(number) for number in range(60)], 16))  # the process grows to its size
    process = psutil.Process(service.process.pid)
    before, memory = settled(service), process.memory_info().rss
    calls = [Call(number) for number in range(200)]
    results = asyncio.run(crowd(service.url, calls, 16))
    after = settled(service)

    for call in calls:
        if "prompt" in call.body and not call.leaves:
            assert results[call.number] == greedy[call.prompt], call
        elif not call.leaves and (expected := by_body.get(json.dumps(call.body))) is not None:
            assert results[call.number] == expected, call
    ended = outcomes(after) - outcomes(before)
    assert set(ended) == {"done", "cancelled"}
    leaving = sum(call.leaves for call in calls)
    assert len(calls) - leaving <= ended["done"]
    assert 10 <= ended["cancelled"] <= leaving
    assert sum(ended.values()) <= len(calls)  # some leave before their request has arrived
    steps = after["lmbatch_steps_total"] - before["lmbatch_steps_total"]
    assert (after["lmbatch_step_rows_total"] - before["lmbatch_step_rows_total"]) / steps > 3
    assert process.memory_info().rss - memory < 64 * 2**20


def test_who_hangs_up_before_the_answer_is_not_worked_for(service):
    before = settled(service)
    place = urlsplit(service.url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    body = {"context": "国", "maxlength": 250, "samples": 4, "temperature": 3.0}
    connection.request("POST", "/", json.dumps(body), headers)
    while not metrics(service)["lmbatch_requests_running"]:
        pass
    connection.close()
    after = settled(service)
    assert outcomes(after) - outcomes(before) == Counter(cancelled=1)
    assert after["lmbatch_generated_tokens_total"] - before["lmbatch_generated_tokens_total"] < 4 * 250


def test_a_flood_is_refused_and_not_swallowed(service):
    """Sixty texts of the longest kind at once: some run, some wait, the rest hear 429 at once and when to come back."""
    before = outcomes(settled(service))

    async def flood() -> list[httpx.Response]:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=60) as client:
            body = {"context": "国", "maxlength": 200, "samples": 4, "temperature": 2.0}
            return list(await asyncio.gather(*(client.post("/", json=body) for _ in range(60))))

    answers = asyncio.run(flood())
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 429}
    assert statuses[200] >= WAITING
    assert all(len(answer.json()) == 4 for answer in answers if answer.status_code == 200)
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["retry-after"]
    assert refused.json()["error"]["code"] == "queue_full"
    ended = outcomes(settled(service)) - before
    assert ended == Counter(done=statuses[200], refused=statuses[429])


def test_more_connections_than_may_be_are_turned_away(service):
    """Idle connections count too; health comes back when they are gone."""
    place = urlsplit(service.url)
    idle = [http.client.HTTPConnection(place.hostname, place.port, timeout=60) for _ in range(64)]
    for connection in idle:
        connection.connect()
    assert httpx.get(f"{service.url}/healthz", timeout=60).status_code == 503
    for connection in idle:
        connection.close()
    end = time.monotonic() + 60
    while httpx.get(f"{service.url}/healthz", timeout=60).status_code != 200:
        assert time.monotonic() < end


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def begun(service: TextService, **body: Any) -> http.client.HTTPResponse:
    """A stream whose first piece has come."""
    place = urlsplit(service.url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "第一条", "stream": True} | body), headers)
    answer = connection.getresponse()
    assert answer.readline().startswith(b"data: ")
    return answer


def stop_while_reading(
    service: TextService, number: signal.Signals, answer: http.client.HTTPResponse
) -> tuple[int, str]:
    """The exit code, and what was still sent."""
    codes: list[int] = []
    stopping = threading.Thread(target=lambda: codes.append(service.stop(number)))
    stopping.start()
    try:
        rest = answer.read().decode()
    except http.client.IncompleteRead as torn:
        rest = torn.partial.decode()
    stopping.join()
    return codes[0], rest


def test_sigterm_lets_the_running_request_end(service):
    """The last test that needs this server."""
    code, rest = stop_while_reading(service, signal.SIGTERM, begun(service, max_tokens=240, temperature=2.0, n=4))
    assert code == 0
    assert rest.rstrip().endswith("data: [DONE]")
    assert "stopping: 1 requests" in service.log
    with pytest.raises(httpx.ConnectError):
        httpx.get(service.url)
    for secret in ("Traceback", KEY, *PROMPTS):
        assert secret not in service.log


def test_what_does_not_end_in_time_is_cut(export, tmp_path):
    """Ctrl-C, with no grace at all; beams over many tokens would take far longer. And who listens widely is warned."""
    with TextService(export, tmp_path / "log", "--grace", "0", "--host", "0.0.0.0") as service:
        code, rest = stop_while_reading(service, signal.SIGINT, begun(service, max_tokens=240, temperature=2.0, n=16))
    assert code == 0
    assert "[DONE]" not in rest
    assert "the service stopped before the text was ready" in rest
    assert "1 requests were cut short" in service.log
    assert "no API key is asked for" in service.log
    assert "Traceback" not in service.log
