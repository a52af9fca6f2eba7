"""What both ways of asking for text have in common: the service's own defaults and limits, and clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from lmbatch.config import GenerateConfig, ServeConfig
from lmbatch.errors import LmbatchError
from lmbatch.infer.batching import GenerationQueue, GenerationRequest, Reply, Ticket
from lmbatch.infer.http.metrics import HttpMetrics
from lmbatch.infer.http.problems import ApiError, from_generation

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Service:
    """One model, and the rules that hold for every request to it."""

    queue: GenerationQueue
    config: ServeConfig
    name: str
    started: int  # seconds since the epoch
    metrics: HttpMetrics

    def settings(self, **given: Any) -> GenerateConfig:
        """The request's settings; what it leaves out (None) is the service's, and the seed is drawn."""
        own = {key: getattr(self.config, key) for key in ("temperature", "top_k", "top_p")}
        asked = {key: value for key, value in given.items() if value is not None}
        return GenerateConfig(**({"seed": secrets.randbelow(2**31)} | own | asked))

    def requests(
        self, prompts: Sequence[str], settings: GenerateConfig, *, samples: int, stop: Sequence[str], names: Names
    ) -> list[GenerationRequest]:
        """One request for each prompt. Raises ApiError, naming the client's own keys, for what is over a limit."""
        limits = self.config
        if settings.max_new_tokens > limits.max_tokens:
            raise too_much(names.tokens, f"at most {limits.max_tokens} tokens may be asked for")
        if samples * len(prompts) > limits.max_samples:
            raise too_much(names.samples, f"at most {limits.max_samples} texts may be asked for at once")
        for prompt in prompts:
            self._check_prompt(prompt, settings.max_new_tokens, names)
        return [GenerationRequest(prompt, settings, samples, tuple(stop), limits.max_seconds) for prompt in prompts]

    def _check_prompt(self, prompt: str, new: int, names: Names) -> None:
        if not prompt:
            raise ApiError(400, f"{names.prompt} is empty", code="empty_prompt", param=names.prompt)
        window = self.queue.generator.window(prompt, new)
        length = len(window.ids) + window.dropped
        if window.dropped or window.new < new:
            raise too_much(
                names.prompt,
                f"the model sees {self.queue.generator.context} tokens at once: {length} of {names.prompt} and "
                f"{new} of {names.tokens} are too many",
            )

    def submit(self, requests: Sequence[GenerationRequest], *, streamed: bool = False) -> list[Ticket]:
        """All of them or none. Raises ApiError."""
        tickets: list[Ticket] = []
        try:
            for request in requests:
                tickets.append(self.queue.submit(request, streamed=streamed))
        except LmbatchError as error:
            for ticket in tickets:
                ticket.cancel()
            raise from_generation(error) from None
        return tickets

    async def replies(self, request: Request, wanted: Sequence[GenerationRequest]) -> list[Reply]:
        """Run requests until all are answered or the client has left. Raises ApiError, ClientLeft."""
        tickets = self.submit(wanted)
        with leaving(tickets):
            return await unless_left(request, gather(tickets))


@dataclass(frozen=True, slots=True)
class Names:
    """How a client spells prompt, tokens and samples."""

    prompt: str
    tokens: str
    samples: str


class ClientLeft(Exception):  # noqa: N818  (nobody is left to be told of an error)
    """There is nobody to answer to."""


def too_much(param: str, message: str) -> ApiError:
    """400."""
    return ApiError(400, f"{param}: {message}", code="over_limit", param=param)


@contextlib.contextmanager
def leaving(tickets: Sequence[Ticket]) -> Iterator[None]:
    """However this ends, nothing goes on for it afterwards."""
    try:
        yield
    finally:
        for ticket in tickets:
            ticket.cancel()


async def gather(tickets: Sequence[Ticket]) -> list[Reply]:
    """All replies. Raises ApiError for the first that fails."""
    try:
        return [await ticket.reply() for ticket in tickets]
    except LmbatchError as error:
        raise from_generation(error) from None


async def unless_left(request: Request, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """The result, or ClientLeft as soon as the connection ends; then the work is cancelled."""
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft
        return task.result()
    finally:
        task.cancel()
        left.cancel()


async def _left(request: Request) -> None:
    """The body has been read, so the next message is that the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
