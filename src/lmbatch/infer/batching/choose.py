"""The next token of every row, each by its own settings and its own random numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from lmbatch.config import GenerateConfig
from lmbatch.infer.sampling import penalties

_COLDEST = 1e-4  # dividing by less may leave float32; the likeliest token has all of the probability long before


class Choosing(Protocol):
    """A row, as far as the choice of its next token goes."""

    settings: GenerateConfig
    random: random.Random

    @property
    def ids(self) -> Sequence[int]:
        """The prompt's ids and the new ones."""


def choose(logits: torch.Tensor, rows: Sequence[Choosing]) -> list[int]:
    """One id for each row of ``logits`` (rows, vocabulary).

    A row's draw is one number of its own generator, looked up in its cumulated probabilities: so it depends neither
    on its neighbours nor on the device's random generator. Rows with the same settings are worked on together.
    """
    scores = _penalized(logits.float(), rows)
    chosen = [0] * len(rows)
    for settings, numbers in _alike(rows).items():
        part = scores[numbers]
        ids = part.argmax(dim=-1).tolist() if settings is None else _sampled(part, settings, _draws(rows, numbers))
        for number, token in zip(numbers, ids, strict=True):
            chosen[number] = token
    return chosen


_Settings = tuple[float, int, float] | None


def _alike(rows: Sequence[Choosing]) -> dict[_Settings, list[int]]:
    groups: dict[_Settings, list[int]] = {}
    for number, row in enumerate(rows):
        own = row.settings
        key = (own.temperature, own.top_k, own.top_p) if own.temperature >= _COLDEST else None
        groups.setdefault(key, []).append(number)
    return groups


def _penalized(scores: torch.Tensor, rows: Sequence[Choosing]) -> torch.Tensor:
    for number, row in enumerate(rows):
        wanted = penalties(row.settings, [0])
        if wanted:
            ids = torch.tensor([list(row.ids)], device=scores.device)
            scores[number] = wanted(ids, scores[number : number + 1])[0]  # type: ignore[arg-type]
    return scores


def _draws(rows: Sequence[Choosing], numbers: Sequence[int]) -> list[float]:
    return [rows[number].random.random() for number in numbers]


def _sampled(scores: torch.Tensor, settings: tuple[float, int, float], draws: Sequence[float]) -> list[int]:
    """Temperature, then top-k, then top-p, then the draw; in float64, as a vocabulary is long."""
    temperature, top_k, top_p = settings
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    nothing = torch.empty((len(draws), 0), dtype=torch.long, device=scores.device)
    cumulated = warpers(nothing, scores).softmax(dim=-1, dtype=torch.float64).cumsum(dim=-1)  # type: ignore[arg-type]
    points = torch.tensor(draws, dtype=torch.float64, device=scores.device)[:, None] * cumulated[:, -1:]
    found: list[int] = torch.searchsorted(cumulated, points, right=True)[:, 0].tolist()
    return found
