"""A real server around the application: sockets, signals, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from lmbatch.config import GenerateConfig, ServeConfig
from lmbatch.errors import UsageError
from lmbatch.infer.batching import GenerationQueue, QueueLimits
from lmbatch.infer.generate import TextGenerator
from lmbatch.infer.http.app import create_app
from lmbatch.infer.http.metrics import HttpMetrics
from lmbatch.infer.http.service import Service

log = logging.getLogger(__name__)

KEY_VARIABLE = "LMBATCH_API_KEY"
_LOCAL = ("127.0.0.1", "localhost", "::1")
_TCP_BACKLOG = 128
_AFTER_GRACE = 10  # seconds for the answers themselves to leave


def serve(generator: TextGenerator, config: ServeConfig, *, name: str, api_key: str | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests end within ``config.grace`` seconds.

    Raises UsageError if the address cannot be listened on.
    """
    if api_key is None and config.host not in _LOCAL:
        log.warning(
            "warning: %s can be reached from other machines, and no API key is asked for; set %s, or listen on "
            "127.0.0.1", config.host, KEY_VARIABLE,
        )  # fmt: skip
    generator.generate(["。"], GenerateConfig(max_new_tokens=1, temperature=0))  # what is lazy is made now
    with GenerationQueue(generator, QueueLimits(rows=config.rows, waiting=config.waiting)) as queue:
        service = Service(queue, config, config.name or name, int(time.time()), HttpMetrics())
        server = StoppingServer(_uvicorn(config, create_app(service, api_key=api_key)), queue, grace=config.grace)
        try:
            server.run()
        except SystemExit as error:  # uvicorn has logged why
            if error.code:
                raise UsageError(
                    f"{config.host}:{config.port}: cannot be listened on", remedy="name another --port or --host"
                ) from None
    log.info("stopped")


def read_api_key(path: Path | None) -> str | None:
    """The key from a file, or else from the environment; None if neither names one. Raises UsageError."""
    if path is None:
        key = os.environ.get(KEY_VARIABLE)
        where = KEY_VARIABLE
    else:
        try:
            key, where = path.read_text(encoding="utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: the API key cannot be read: {error}") from error
    if key is None:
        return None
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable():
        raise UsageError(f"{where}: holds no API key", remedy="a key is one line of printable ASCII characters")
    return key


class StoppingServer(uvicorn.Server):
    """On a signal: no new requests, the running ones end within the grace, exit code 0. A second one does not wait."""

    def __init__(self, config: uvicorn.Config, queue: GenerationQueue, *, grace: float) -> None:
        super().__init__(config)
        self._queue = queue
        self._grace = grace

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn's own would send the process the signal again in the end, and the exit code would be the signal's."""
        log.info("stopping: %d requests are under way", self._queue.waiting + self._queue.running)
        self._queue.refuse()
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: Any = None) -> None:
        """Say where it listens, also if the port was left to the system."""
        await super().startup(sockets)
        for server in self.servers:
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                log.info("ready: http://%s:%d", f"[{host}]" if ":" in host else host, port)

    async def shutdown(self, sockets: Any = None) -> None:
        """What is not ready when the grace is over is answered with an error, not with a torn connection."""
        ending = asyncio.ensure_future(self._end())
        await super().shutdown(sockets)
        if self.force_exit:
            ending.cancel()
        else:
            await ending

    async def _end(self) -> None:
        if not await self._queue.drain(self._grace):
            log.warning("%d requests were cut short", self._queue.waiting + self._queue.running)
        self._queue.stop(wait=False)


def _uvicorn(config: ServeConfig, app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        log_config=None,
        log_level="warning",
        access_log=False,  # the guard writes one that holds no queries
        server_header=False,
        limit_concurrency=config.max_connections,
        backlog=_TCP_BACKLOG,
        timeout_graceful_shutdown=math.ceil(config.grace) + _AFTER_GRACE,
    )
