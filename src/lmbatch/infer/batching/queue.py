"""The queue as asynchronous callers see it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

from lmbatch.errors import ConfigError, LmbatchError, QueueFullError
from lmbatch.infer.batching.job import Event, Job
from lmbatch.infer.batching.line import WaitingLine
from lmbatch.infer.batching.requests import GenerationRequest, Piece, QueueLimits, Reply
from lmbatch.infer.batching.stats import QueueStats
from lmbatch.infer.batching.worker import Worker
from lmbatch.infer.generate import TextGenerator


class Ticket:
    """A request that was taken. Iterate over it for the pieces, or wait for the reply; cancel it when you leave."""

    def __init__(self, job: Job, inbox: asyncio.Queue[Event]) -> None:
        self._job = job
        self._inbox = inbox
        self.prompt_tokens = len(job.window.ids)
        self.dropped = job.window.dropped

    def cancel(self) -> None:
        """Nobody waits for this any more; does nothing after its end."""
        self._job.cancel()

    async def pieces(self) -> AsyncGenerator[Piece]:
        """The pieces as they come. Raises DeadlineError or GenerationError. Leaving early cancels the request."""
        try:
            while not isinstance(event := await self._next(), Reply):
                yield event
        finally:
            self.cancel()

    async def reply(self) -> Reply:
        """Everything at once. Raises as above; a caller that is cancelled cancels the request."""
        try:
            while not isinstance(event := await self._next(), Reply):
                pass
            return event
        finally:
            self.cancel()

    async def _next(self) -> Piece | Reply:
        event = await self._inbox.get()
        if isinstance(event, LmbatchError):
            raise event
        return event


class GenerationQueue:
    """Runs requests on one model, which must not be used otherwise meanwhile.

    ::

        with GenerationQueue(load_for_generation(folder)) as queue:
            reply = await queue.complete(GenerationRequest("你好", samples=5))
            async for piece in queue.stream(GenerationRequest("你好")): ...

    Callers may sit in several event loops. The thread starts with :meth:`start` and ends with :meth:`stop`.
    """

    def __init__(self, generator: TextGenerator, limits: QueueLimits | None = None) -> None:
        self._limits = limits or QueueLimits()
        self._generator = generator
        self._line = WaitingLine(self._limits.waiting)
        self._worker = Worker(generator, self._line, self._limits, stats := QueueStats())
        self.stats = stats

    @property
    def generator(self) -> TextGenerator:
        """The model and its tokenizer."""
        return self._generator

    @property
    def limits(self) -> QueueLimits:
        """What was given."""
        return self._limits

    @property
    def alive(self) -> bool:
        """The thread runs and takes requests."""
        return self._worker.is_alive() and not self._line.refuses

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return len(self._line)

    @property
    def running(self) -> int:
        """Requests that are worked on."""
        return len(self._worker.jobs)

    @property
    def rows(self) -> int:
        """Texts that grow side by side at this moment."""
        return self._worker.rows

    def start(self) -> None:
        """Start the thread. Requests that were put before wait for it."""
        self._worker.start()

    def submit(self, request: GenerationRequest, *, streamed: bool = False) -> Ticket:
        """Take a request, within an event loop. ``streamed``: its ticket gives pieces as they come.

        Raises QueueFullError at once if as many wait as may, and ConfigError if it asks for more samples than can
        ever run side by side.
        """
        if request.samples > self._limits.rows:
            raise ConfigError(f"samples = {request.samples}: at most {self._limits.rows} texts grow side by side")
        loop, inbox = asyncio.get_running_loop(), asyncio.Queue[Event]()

        def emit(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # the caller's loop is closed: nobody is there to hear it
                loop.call_soon_threadsafe(inbox.put_nowait, event)

        job = Job(request, self._generator, emit, streamed=streamed)
        try:
            self._line.put(job)
        except QueueFullError:
            self.stats.requests["refused"] += 1
            raise
        return Ticket(job, inbox)

    async def complete(self, request: GenerationRequest) -> Reply:
        """All samples of a request, when the last is finished. Raises as :meth:`submit` and :meth:`Ticket.reply`."""
        return await self.submit(request).reply()

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Piece]:
        """Pieces of all samples as they grow. Raises as :meth:`submit` (at the first piece) and Ticket.pieces."""
        ticket = self.submit(request, streamed=True)
        async with contextlib.aclosing(ticket.pieces()) as pieces:
            async for piece in pieces:
                yield piece

    def refuse(self) -> None:
        """Take no new requests; those that are there go on."""
        self._line.refuse()

    async def drain(self, seconds: float) -> bool:
        """Refuse new requests, and give those that are there so long to end. Whether all did."""
        self.refuse()
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (self.waiting or self.running) and loop.time() < end:
            await asyncio.sleep(0.02)
        return not (self.waiting or self.running)

    def stop(self, *, wait: bool = True) -> None:
        """End the thread; requests that are left get a GenerationError."""
        self._line.stop()
        if wait and self._worker.ident is not None:
            self._worker.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
