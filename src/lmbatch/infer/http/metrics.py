"""The service in numbers, as Prometheus reads them.

The text format: https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import get_args

from lmbatch.infer.batching import GenerationQueue
from lmbatch.infer.batching.stats import Outcome

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)  # seconds


class HttpMetrics:
    """Answers by status, and how long they took."""

    def __init__(self) -> None:
        self._statuses: Counter[int] = Counter()
        self._buckets = [0] * (len(_BOUNDS) + 1)
        self._seconds = 0.0

    def answered(self, status: int, seconds: float) -> None:
        """One more answer is complete."""
        self._statuses[status] += 1
        self._buckets[bisect_left(_BOUNDS, seconds)] += 1
        self._seconds += seconds

    def lines(self) -> Iterator[str]:
        """Two families."""
        counts = {f'{{status="{status}"}}': count for status, count in sorted(self._statuses.items())}
        yield from _family("lmbatch_http_responses_total", "counter", "Answers by status.", counts)
        name = "lmbatch_http_response_seconds"
        below, bounds = 0, {}
        for bound, count in zip([*map(str, _BOUNDS), "+Inf"], self._buckets, strict=True):
            below += count
            bounds[f'_bucket{{le="{bound}"}}'] = below
        values = bounds | {"_sum": round(self._seconds, 6), "_count": below}
        yield from _family(name, "histogram", "Seconds from a request to the end of its answer.", values)


def metrics_text(http: HttpMetrics, queue: GenerationQueue) -> str:
    """All families."""
    return "\n".join([*http.lines(), *_queue_lines(queue)]) + "\n"


def _queue_lines(queue: GenerationQueue) -> Iterator[str]:
    stats = queue.stats
    requests = {f'{{outcome="{outcome}"}}': stats.requests[outcome] for outcome in get_args(Outcome)}
    yield from _family("lmbatch_requests_total", "counter", "Generation requests by how they ended.", requests)
    for name, text, value in (
        ("lmbatch_prompt_tokens_total", "Prompt tokens read.", stats.prompt_tokens),
        ("lmbatch_generated_tokens_total", "Tokens generated.", stats.new_tokens),
        ("lmbatch_steps_total", "Passes of the model that gave one token to each of some rows.", stats.steps),
        ("lmbatch_step_rows_total", "Rows of all these passes; divided by them: the mean batch.", stats.row_steps),
    ):
        yield from _family(name, "counter", text, {"": value})
    for name, text, value in (
        ("lmbatch_requests_waiting", "Requests that wait for a place.", queue.waiting),
        ("lmbatch_requests_running", "Requests that are worked on.", queue.running),
        ("lmbatch_rows", "Texts that grow side by side now.", queue.rows),
        ("lmbatch_ready", "1 while requests are taken.", int(queue.alive)),
    ):
        yield from _family(name, "gauge", text, {"": value})


def _family(name: str, kind: str, text: str, values: dict[str, float] | dict[str, int]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    yield from (f"{name}{label} {value}" for label, value in values.items())
