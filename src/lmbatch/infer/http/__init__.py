"""The HTTP service: text for clients in any language.

::

    POST /                 {"context", "maxlength", "samples"} ──▶ a JSON list of texts       simple
    POST /v1/completions   OpenAI's, also streamed             ──▶ choices, usage             openai, openai_body
    GET  /v1/models  /healthz  /metrics  /openapi.json

    client ──▶ server (uvicorn, signals) ──▶ guard (key, log, counters) ──▶ app ──▶ bodies (checked)
                                                                             │
                       problems (one JSON shape for every error) ◀───────────┤
                                                                             ▼
                                              service (limits, clients that leave) ──▶ GenerationQueue

Called by ``cli`` (serve). The application knows nothing of sockets, and the queue nothing of HTTP.
"""

from lmbatch.infer.http.app import create_app
from lmbatch.infer.http.server import KEY_VARIABLE, read_api_key, serve
from lmbatch.infer.http.service import Service

__all__ = ["KEY_VARIABLE", "Service", "create_app", "read_api_key", "serve"]
