"""Generation for many callers at once: one model, one thread, one batch that requests join and leave.

::

    async caller ── GenerationQueue.stream / complete ──▶ WaitingLine (bounded) ──▶ Worker thread
         ▲                                                                            │ owns the model
         │                                                                   DecodingBatch: one token a row a step,
         │                                                                   rows join and leave between two steps
         └────────────── Piece, Piece, …, Reply, or an error ◀────────────────────────┘

Called by the HTTP service and the chat page. What a request gives depends on the model, its prompt, its settings and
its seed, not on what else is under way.

Why a loop of our own over the cache: ``generate`` cannot let a row join or leave before all are done, and
transformers' own continuous batching knows neither a seed per request nor attention other than its paged one (BLOOM's
is not), takes most of a GPU's memory for itself, and is slower than one request at a time on a CPU
(tests/bench/README.md has the figures).
"""

from lmbatch.infer.batching.queue import GenerationQueue, Ticket
from lmbatch.infer.batching.requests import Finish, GenerationRequest, Piece, QueueLimits, Reply, Sample
from lmbatch.infer.batching.stats import QueueStats

__all__ = [
    "Finish",
    "GenerationQueue",
    "GenerationRequest",
    "Piece",
    "QueueLimits",
    "QueueStats",
    "Reply",
    "Sample",
    "Ticket",
]
