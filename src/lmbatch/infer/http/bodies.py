"""From the bytes of a request to a checked value, or to an error that names what is wrong."""

from __future__ import annotations

import asyncio
import difflib
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect, Request

from lmbatch.infer.http.problems import ApiError

_READ_SECONDS = 30  # a client that sends its body drop by drop holds a connection no longer
BodyT = TypeVar("BodyT", bound="Body")


class Body(BaseModel):
    """A JSON object whose keys are all known and whose values have the right type already: "5" is not 5."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


async def read_body(request: Request, kind: type[BodyT], *, limit: int) -> BodyT:
    """The body as ``kind``. Raises ApiError: 400, 408, 413 or 415."""
    _check_type(request)
    try:
        async with asyncio.timeout(_READ_SECONDS):
            data = await _read(request, limit)
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {_READ_SECONDS} seconds", code="body_too_slow") from None
    return parse_body(data, kind)


def parse_body(data: bytes, kind: type[BodyT]) -> BodyT:
    """Raises ApiError 400 for what is no JSON object, and for every key that is unknown, missing or wrong."""
    if not data.strip():
        raise ApiError(400, "the body is empty; it must be a JSON object", code="empty_body")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8: byte {error.start}", code="invalid_utf8") from None
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        first = details[0]
        code = "invalid_json" if first["type"] == "json_invalid" else "invalid_value"
        message = "; ".join(dict.fromkeys(_explain(kind, detail) for detail in details))
        raise ApiError(400, message, code=code, param=_key(first) or None) from None


def _check_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(
            415, f"the content type is {kind[:60] or 'missing'}; send application/json", code="wrong_content_type"
        )


async def _read(request: Request, limit: int) -> bytes:
    """No more than ``limit`` bytes, whatever the header says of the length."""
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > limit:
                raise ApiError(413, f"the body has more than {limit:,} bytes", code="body_too_large")
    except ClientDisconnect:
        raise ApiError(400, "the connection ended before the body did", code="torn_body") from None
    return bytes(data)


def _key(detail: ErrorDetails) -> str:
    return ".".join(str(part) for part in detail["loc"][:1])


def _explain(kind: type[BaseModel], detail: ErrorDetails) -> str:
    """Values are not repeated: they may be anything, and end up in somebody's log."""
    key = _key(detail)
    if detail["type"] == "json_invalid":
        return f"the body is not JSON: {detail['msg'].removeprefix('Invalid JSON: ')}"
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, kind.model_fields, n=1, cutoff=0.5)
        known = f"did you mean {near[0]}?" if near else f"known: {', '.join(kind.model_fields)}"
        return f"unknown key {key[:60]!r}; {known}"
    if detail["type"] == "missing":
        return f"{key} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message
