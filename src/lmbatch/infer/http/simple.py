"""``POST /``: the endpoint of the text-generation service that recipe S3 stands in for.

``{"context": "你好", "maxlength": 50, "samples": 5}`` → a JSON list of 5 strings. Each string is the context with its
continuation behind it; ``maxlength`` counts the new tokens, as that service's sampling loop did, and a text may end
earlier. Every request draws anew, unless it names a seed.
"""

from __future__ import annotations

from pydantic import Field
from starlette.requests import Request

from lmbatch.infer.http.bodies import Body, read_body
from lmbatch.infer.http.service import Names, Service

_NAMES = Names(prompt="context", tokens="maxlength", samples="samples")


class ContextBody(Body):
    """The request; what is left out is the service's own setting."""

    context: str = Field(description="What the texts begin with.")
    maxlength: int = Field(50, gt=0, description="New tokens at most, for each text.")
    samples: int = Field(1, gt=0, description="Texts.")
    temperature: float | None = Field(None, ge=0, le=100, allow_inf_nan=False, description="0: the likeliest token.")
    topk: int | None = Field(None, ge=0, description="Only the k likeliest tokens; 0: all.")
    topp: float | None = Field(None, gt=0, le=1, description="Only the smallest set with this probability.")
    seed: int | None = Field(None, ge=0, lt=2**63, description="Repeats the texts.")


async def continue_context(service: Service, request: Request) -> list[str]:
    """Texts, in no order. Raises ApiError, ClientLeft."""
    body = await read_body(request, ContextBody, limit=service.config.max_body)
    settings = service.settings(
        max_new_tokens=body.maxlength, temperature=body.temperature, top_k=body.topk, top_p=body.topp, seed=body.seed
    )
    wanted = service.requests([body.context], settings, samples=body.samples, stop=(), names=_NAMES)
    (reply,) = await service.replies(request, wanted)
    return reply.texts
