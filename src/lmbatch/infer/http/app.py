"""The routes, and one JSON shape for whatever goes wrong."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from lmbatch import __version__
from lmbatch.infer.http import openai
from lmbatch.infer.http.bodies import Body
from lmbatch.infer.http.guard import Guard
from lmbatch.infer.http.metrics import CONTENT_TYPE, metrics_text
from lmbatch.infer.http.openai_body import CompletionBody
from lmbatch.infer.http.problems import ApiError, respond
from lmbatch.infer.http.service import ClientLeft, Service
from lmbatch.infer.http.simple import ContextBody, continue_context

_LEFT = 499


def create_app(service: Service, *, api_key: str | None = None) -> FastAPI:
    """The ASGI application. Its queue must run; who starts it also stops it."""
    # The pages that FastAPI adds load scripts from elsewhere; the description itself stays at /openapi.json.
    app = FastAPI(title="lmbatch", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, api_key=api_key, metrics=service.metrics)
    _add_errors(app)

    @app.post("/", openapi_extra=_described(ContextBody))
    async def continue_(request: Request) -> list[str]:
        """Context in, a list of texts out."""
        return await continue_context(service, request)

    @app.post("/v1/completions", openapi_extra=_described(CompletionBody), response_model=None)
    async def completions(request: Request) -> Response:
        """OpenAI's completions."""
        return await openai.complete(service, request)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model."""
        return openai.models(service)

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """200 while requests are taken, 503 when the service stops or the model's thread has died."""
        queue = service.queue
        state = {"status": "ready" if queue.alive else "stopping", "model": service.name}
        counts = {"waiting": queue.waiting, "running": queue.running}
        return JSONResponse(state | counts, status_code=200 if queue.alive else 503)

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        """For Prometheus."""
        return PlainTextResponse(metrics_text(service.metrics, service.queue), media_type=CONTENT_TYPE)

    return app


def _described(kind: type[Body]) -> dict[str, Any]:
    """Bodies are read by hand, for the sake of their errors, so they are described by hand too."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": kind.model_json_schema()}}}}


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> JSONResponse:
        return respond(error)

    @app.exception_handler(ClientLeft)
    async def left(request: Request, error: ClientLeft) -> Response:
        return Response(status_code=_LEFT)

    @app.exception_handler(HTTPException)
    async def not_here(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "no_such_path", 405: "wrong_method"}.get(error.status_code, "refused")
        answer = respond(ApiError(error.status_code, str(error.detail).lower(), code=code))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return respond(ApiError(500, "the service failed; its log says why", code="internal"))
