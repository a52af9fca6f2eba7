"""How well a causal language model foretells documents: perplexity, and bits per byte of their text.

::

    documents (ids, bytes) ──windows──▶ batches ──▶ model ──▶ nats of each predicted token ──▶ Score

A document is foretold from its first token to its EOD, with an EOD before it, as it stands in a packed corpus. What is
longer than the context is seen through windows that move on by ``stride``: each token is scored once, in the first
window that reaches it, with at least ``context - stride`` tokens before it (but for the first window).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from lmbatch.errors import UsageError
from lmbatch.infer.sampling import evaluating

_LARGEST_EXPONENT = 700.0  # e^709.8 is the end of float64


@dataclass(frozen=True, slots=True)
class Document:
    """The ids of a text, no EOD among them, and the UTF-8 bytes that they stand for."""

    ids: Sequence[int]
    text_bytes: int


@dataclass(frozen=True, slots=True)
class Window:
    """``inputs`` tokens from ``start`` on are shown; of their targets the last ``scored`` count."""

    start: int
    inputs: int
    scored: int


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over documents. ``tokens`` counts the predicted ones, each document's EOD too; ``unknown`` those of them
    that stand for a text which has no entry in the vocabulary."""

    documents: int
    tokens: int
    text_bytes: int
    nats: float
    unknown: int = 0

    @property
    def loss(self) -> float:
        """Nats per token, over all tokens alike."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """e to the power of the loss."""
        return math.exp(min(self.loss, _LARGEST_EXPONENT))

    @property
    def bits_per_byte(self) -> float | None:
        """Bits for each UTF-8 byte of text, which compares models with different tokenizers; None without text."""
        return self.nats / math.log(2) / self.text_bytes if self.text_bytes else None

    def __add__(self, other: Score) -> Score:
        return Score(
            self.documents + other.documents, self.tokens + other.tokens, self.text_bytes + other.text_bytes,
            self.nats + other.nats, self.unknown + other.unknown,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "documents": self.documents, "tokens": self.tokens, "text_bytes": self.text_bytes, "loss": self.loss,
            "perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte, "unknown_tokens": self.unknown,
        }  # fmt: skip


def windows(targets: int, *, context: int, stride: int) -> Iterator[Window]:
    """Windows over a document of ``targets`` predicted tokens; every target is scored exactly once."""
    scored = 0
    while scored < targets:
        start = 0 if scored == 0 else min(scored + stride, targets) - context
        start = max(0, start)
        inputs = min(context, targets - start)
        yield Window(start, inputs, start + inputs - scored)
        scored = start + inputs


def check_stride(context: int, stride: int) -> None:
    """Raises UsageError unless 1 <= stride <= context."""
    if not 1 <= stride <= context:
        raise UsageError(f"a stride of {stride} does not fit a context of {context}", remedy="take 1 up to the context")


class Scorer:
    """Scores documents with a model. The same documents in the same order give the same numbers."""

    def __init__(
        self, model: torch.nn.Module, *, eod_id: int, context: int, stride: int, batch: int,
        unknown_id: int | None = None,
    ) -> None:  # fmt: skip
        """Raises UsageError for a stride that does not fit the context."""
        check_stride(context, stride)
        self._model: Any = model
        self._eod_id, self._unknown_id = eod_id, unknown_id
        self._context, self._stride, self._batch = context, stride, batch

    def score(self, documents: Iterable[Document], progress: Callable[[int], None] = lambda tokens: None) -> Score:
        """The sum over all documents; ``progress`` is told how many tokens are scored. Raises UsageError for none."""
        done, nats = Score(0, 0, 0, 0.0), []
        rows: list[tuple[list[int], int]] = []
        with evaluating(self._model):
            for document in documents:
                done += self._counts(document)
                rows += self._rows(document)
                while len(rows) >= self._batch:
                    nats.append(self._nats(rows[: self._batch]))
                    rows = rows[self._batch :]
                    progress(done.tokens)
            nats += [self._nats(rows)] if rows else []
        if not done.documents:
            raise UsageError("there is no document to evaluate on", remedy="name a file with text, or another split")
        return done + Score(0, 0, 0, math.fsum(nats))

    def _counts(self, document: Document) -> Score:
        unknown = sum(token == self._unknown_id for token in document.ids) if self._unknown_id is not None else 0
        return Score(1, len(document.ids) + 1, document.text_bytes, 0.0, unknown)

    def _rows(self, document: Document) -> Iterator[tuple[list[int], int]]:
        """Inputs with the last target behind them, and how many targets count."""
        ids = [self._eod_id, *document.ids, self._eod_id]
        for window in windows(len(ids) - 1, context=self._context, stride=self._stride):
            yield ids[window.start : window.start + window.inputs + 1], window.scored

    def _nats(self, rows: Sequence[tuple[list[int], int]]) -> float:
        """Padding stands behind what is attended to, so a causal model needs no mask for it."""
        width = max(len(ids) for ids, _ in rows)
        tokens = torch.tensor([ids + [self._eod_id] * (width - len(ids)) for ids, _ in rows])
        labels = torch.full((len(rows), width - 1), -100)
        for number, (ids, scored) in enumerate(rows):
            end = len(ids) - 1
            labels[number, end - scored : end] = tokens[number, end + 1 - scored : end + 1]
        device = self._model.device
        with torch.inference_mode():
            logits = self._model(input_ids=tokens[:, :-1].to(device), use_cache=False).logits.float()
            losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten().to(device), reduction="none")
        return float(losses.double().sum())
