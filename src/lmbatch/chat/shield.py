"""What does not get through to Gradio: bodies that are too large, and the parts of it that the page has no use for."""

from __future__ import annotations

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

# Files, other servers, and the ways to call a function without the page.
_CLOSED = (
    "upload", "upload_progress", "file", "proxy", "stream", "component_server", "call", "run", "api", "info",
    "deep_link", "runs", "monitoring", "vibe", "mcp", "openapi.json", "custom_component",
)  # fmt: skip
_PREFIXES = ("/gradio_api/", "/")


class Shield:
    """ASGI middleware. 404 for what is closed, 411 and 413 for a body without a length or with too much of it."""

    def __init__(self, app: ASGIApp, *, most_bytes: int) -> None:
        self._app, self._most_bytes = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is refused, pass on every other one."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is not None:
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        if is_closed(scope["path"]):
            return PlainTextResponse("not found", 404)
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        if not length.isdigit():
            return PlainTextResponse("a length is needed", 411)
        if int(length) > self._most_bytes:
            return PlainTextResponse("too much", 413)
        return None


def is_closed(path: str) -> bool:
    """Is this one of the parts that the page has no use for?"""
    for prefix in _PREFIXES:
        if path.startswith(prefix):
            name = path.removeprefix(prefix).partition("/")[0].partition("=")[0]
            return name in _CLOSED
    return False
