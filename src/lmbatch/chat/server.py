"""The server of the page: one port, limits on what comes in, and a stop that lets texts under way end."""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

# Before Gradio is imported: it asks for its newest version and reports how it is used otherwise.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr
import uvicorn
from fastapi import FastAPI

from lmbatch.chat.about import about
from lmbatch.chat.options import PASSWORD, USER, ChatOptions
from lmbatch.chat.page import CSS, build_page, theme
from lmbatch.chat.shield import Shield
from lmbatch.errors import UsageError
from lmbatch.infer import load_for_generation
from lmbatch.infer.batching import GenerationQueue, QueueLimits

log = logging.getLogger(__name__)
_CLOSING_SECONDS = 1  # for pages that are open and ask for nothing


def run_chat(folder: Path, options: ChatOptions, ready: Callable[[str], None]) -> None:
    """Serve the page until SIGTERM or SIGINT. ``ready`` gets the address when it can be opened.

    Raises UsageError for a folder that is no model or a port that is taken, and what loading raises.
    """
    with _ended_by_signals() as on_signal, _socket(options) as listener:
        queue = GenerationQueue(load_for_generation(folder), QueueLimits(rows=options.rows, waiting=options.waiting))
        with queue:
            server = _Server(build_app(queue, folder, options), queue, options)
            on_signal(server.ask_to_end)
            _warn_if_open(options)
            ready(_address(listener, options))
            server.run(sockets=[listener])


def build_app(queue: GenerationQueue, folder: Path, options: ChatOptions) -> FastAPI:
    """The page, and ``/healthz`` beside it, which needs no login."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(Shield, most_bytes=_body_limit(options))

    @app.get("/healthz")
    def healthz() -> dict[str, Any]:
        return {"status": "ok" if queue.alive else "ending", "running": queue.running, "waiting": queue.waiting}

    login = options.login
    gr.mount_gradio_app(
        app, build_page(queue, about(folder, queue.generator), options), path="", theme=theme(), css=CSS,
        auth=None if login is None else lambda user, password: _is(login, user, password),
        footer_links=[], run_history=False, enable_monitoring=False, mcp_server=False, ssr_mode=False, pwa=False,
        show_error=False, max_file_size=0, allowed_paths=[], app_kwargs={"openapi_url": None, "docs_url": None},
    )  # fmt: skip
    return app


def _is(login: tuple[str, str], user: str, password: str) -> bool:
    same = [hmac.compare_digest(a.encode(), b.encode()) for a, b in zip(login, (user, password), strict=True)]
    return all(same)


def _body_limit(options: ChatOptions) -> int:
    """The history travels with a request: 50 prompts with their texts, at most 4 bytes a character."""
    return 65_536 + 8 * options.prompt_characters * 50


class _Server(uvicorn.Server):
    def __init__(self, app: FastAPI, queue: GenerationQueue, options: ChatOptions) -> None:
        super().__init__(
            uvicorn.Config(
                app, log_level="critical", access_log=False, server_header=False, lifespan="on",
                timeout_graceful_shutdown=_CLOSING_SECONDS, limit_concurrency=1000,
            )
        )  # fmt: skip
        self._queue, self._grace = queue, options.grace_seconds

    def ask_to_end(self) -> None:
        """May be called by a signal handler."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Texts under way may end first; pages that only are open get a moment."""
        if not await self._queue.drain(self._grace):
            log.warning("requests were not done after %g s and are given up", self._grace)
        await super().shutdown(sockets)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[Callable[[Callable[[], None]], None]]:
    """SIGTERM and SIGINT end the process with code 0: at once while the model is loaded, then by the given function.

    uvicorn sends itself the signal once more when it is done, which would end the process with the signal's code.
    """
    end: list[Callable[[], None]] = []

    def handle(_number: int, _frame: FrameType | None) -> None:
        if not end:
            raise SystemExit(0)
        end[-1]()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield end.append
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _socket(options: ChatOptions) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        listener = socket.create_server((options.host, options.port), family=family, backlog=128)
    except OSError as error:
        raise UsageError(
            f"{options.host}:{options.port} cannot be listened on: {error.strerror}", remedy="name another --port"
        ) from error
    with listener:
        yield listener


def _address(listener: socket.socket, options: ChatOptions) -> str:
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"http://{host}:{listener.getsockname()[1]}/"


def _warn_if_open(options: ChatOptions) -> None:
    if options.is_open:
        log.warning("everyone who reaches %s may use the model: set %s and %s to ask for a password",
                    options.host, USER, PASSWORD)  # fmt: skip
