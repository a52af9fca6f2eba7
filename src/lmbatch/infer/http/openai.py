"""``/v1/completions`` and ``/v1/models``, as OpenAI's clients speak them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from lmbatch.errors import LmbatchError
from lmbatch.infer.batching import Finish, Reply, Ticket
from lmbatch.infer.http.bodies import read_body
from lmbatch.infer.http.openai_body import CompletionBody
from lmbatch.infer.http.problems import ApiError, from_generation
from lmbatch.infer.http.service import Names, Service, leaving

_NAMES = Names(prompt="prompt", tokens="max_tokens", samples="n")
_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class _Head:
    """What all parts of one answer begin with."""

    model: str
    number: str
    created: int

    def part(self, choices: list[dict[str, Any]], usage: dict[str, int] | None) -> dict[str, Any]:
        fields = {
            "id": self.number,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        return fields if usage is None else fields | {"usage": usage}


async def complete(service: Service, request: Request) -> Response:
    """A completion, whole or in pieces. Raises ApiError, ClientLeft."""
    body = await read_body(request, CompletionBody, limit=service.config.max_body)
    if body.model not in (None, service.name):
        raise ApiError(404, f"there is no model of that name; this is {service.name}", code="model_not_found")
    settings = service.settings(
        max_new_tokens=body.max_tokens or 16, temperature=body.temperature, top_p=body.top_p, top_k=body.top_k,
        seed=body.seed, num_beams=body.num_beams, no_repeat_ngram_size=body.no_repeat_ngram_size,
        repetition_penalty=body.repetition_penalty,
    )  # fmt: skip
    wanted = service.requests(body.prompts, settings, samples=body.n or 1, stop=body.stops, names=_NAMES)
    head = _Head(service.name, f"cmpl-{secrets.token_hex(12)}", int(time.time()))
    if body.stream:
        tickets = service.submit(wanted, streamed=True)
        return TicketStream(tickets, _events(head, body, tickets))
    replies = await service.replies(request, wanted)
    return JSONResponse(head.part(_choices(body, replies), _usage(replies)))


def models(service: Service) -> dict[str, Any]:
    """The one model that is served."""
    entry = {"id": service.name, "object": "model", "created": service.started, "owned_by": "lmbatch"}
    return {"object": "list", "data": [entry]}


class TicketStream(StreamingResponse):
    """Server-sent events; when the answer ends, in whichever way, so does the work for it."""

    def __init__(self, tickets: Sequence[Ticket], events: AsyncGenerator[bytes]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._tickets = tickets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As any response."""
        with leaving(self._tickets):
            await super().__call__(scope, receive, send)


async def _events(head: _Head, body: CompletionBody, tickets: Sequence[Ticket]) -> AsyncGenerator[bytes]:
    """Prompt after prompt; the pieces of one prompt's samples come as they grow."""
    tokens = 0
    samples = body.n or 1
    try:
        for number, ticket in enumerate(tickets):
            first = number * samples
            if body.echo:
                yield _event(head.part([_choice(first + i, body.prompts[number], None) for i in range(samples)], None))
            async for piece in ticket.pieces():
                tokens += piece.tokens
                yield _event(head.part([_choice(first + piece.index, piece.text, piece.finish)], None))
    except LmbatchError as error:  # the status has long been sent
        yield _event(from_generation(error).body)
        return
    if (body.stream_options or {}).get("include_usage"):
        yield _event(head.part([], _counts(sum(ticket.prompt_tokens for ticket in tickets), tokens)))
    yield _DONE


def _choices(body: CompletionBody, replies: Sequence[Reply]) -> list[dict[str, Any]]:
    samples = [(reply.prompt, sample) for reply in replies for sample in reply.samples]
    return [
        _choice(index, prompt + sample.text if body.echo else sample.text, sample.finish)
        for index, (prompt, sample) in enumerate(samples)
    ]


def _choice(index: int, text: str, finish: Finish | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


def _usage(replies: Sequence[Reply]) -> dict[str, int]:
    new = sum(sample.tokens for reply in replies for sample in reply.samples)
    return _counts(sum(reply.prompt_tokens for reply in replies), new)


def _counts(prompt: int, new: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()
