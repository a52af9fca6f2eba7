"""What every request passes first: the key, the log line, the counters. Plain ASGI, so that streams stay streams."""

from __future__ import annotations

import hmac
import logging
import time
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lmbatch.infer.http.metrics import HttpMetrics
from lmbatch.infer.http.problems import ApiError, respond

log = logging.getLogger("lmbatch.access")

OPEN_PATHS = ("/healthz",)  # a container's health check has no key


class Guard:
    """Asks for the API key, if there is one, and writes an access log without prompts, queries or keys."""

    def __init__(self, app: ASGIApp, *, api_key: str | None, metrics: HttpMetrics) -> None:
        self._app = app
        self._key = api_key.encode() if api_key is not None else None
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Websockets are not spoken; lifespan events pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 499  # as nginx has it: the client left before there was an answer
        began = time.monotonic()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if self._allowed(scope):
                await self._app(scope, receive, watched)
            else:
                refusal = ApiError(401, "the API key is missing or wrong", code="invalid_api_key")
                await respond(refusal)(scope, receive, watched)
        finally:
            seconds = time.monotonic() - began
            self._metrics.answered(status, seconds)
            log.info("%s %s %d %.3fs", scope["method"][:16], quote(scope["path"])[:100], status, seconds)

    def _allowed(self, scope: Scope) -> bool:
        if self._key is None or scope["path"] in OPEN_PATHS:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, key = given.partition(b" ")
        # The time that this takes does not tell how much of the key is right.
        return hmac.compare_digest(key.strip(), self._key) and scheme.lower() == b"bearer"
