"""Everything that the service answers with an error: one JSON shape, as OpenAI's clients read it."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from lmbatch.errors import DeadlineError, GenerationError, LmbatchError, QueueFullError

_RETRY_SECONDS = "1"


class ApiError(Exception):
    """A request that is refused. ``param``: the key that is wrong; ``code``: a word for programs."""

    def __init__(self, status: int, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(message, status=status, code=code, param=param)


def error_body(message: str, *, status: int, code: str, param: str | None = None) -> dict[str, Any]:
    """``{"error": {…}}``."""
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def from_generation(error: LmbatchError) -> ApiError:
    """What a client is told of an error of the queue."""
    if isinstance(error, QueueFullError):
        status, code = (503, "stopping") if error.closing else (429, "queue_full")
    elif isinstance(error, DeadlineError):
        status, code = 504, "deadline"
    elif isinstance(error, GenerationError):
        status, code = 500, "generation_failed"
    else:
        status, code = 400, "invalid_value"
    return ApiError(status, error.message, code=code)


def respond(error: ApiError) -> JSONResponse:
    """The answer; who may come back is told when."""
    headers = {"Retry-After": _RETRY_SECONDS} if error.status in (429, 503) else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error.body, status_code=error.status, headers=headers)
