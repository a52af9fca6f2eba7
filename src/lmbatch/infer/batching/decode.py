"""Rows that grow side by side over one key/value cache; rows join and leave between two steps."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache

from lmbatch.config import GenerateConfig
from lmbatch.infer.batching.choose import choose
from lmbatch.infer.window import Window


@dataclass(slots=True)
class Row:
    """One text in the making: what it began with, how it is continued, and the ids so far."""

    window: Window
    settings: GenerateConfig
    random: Random
    new: list[int] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        """The prompt's ids and the new ones."""
        return [*self.window.ids, *self.new]


class DecodingBatch:
    """The rows that are under way, and the cache of what the model has seen of them.

    Rows are padded on the left to the same width; the attention mask hides the padding, and positions are counted
    without it, so that no row sees who its neighbours are. Works with every causal model of transformers whose cache
    is keys and values by position (not with recurrent ones).
    """

    def __init__(self, model: Any, *, padding_id: int, never: Sequence[int] = ()) -> None:
        """``never``: ids that no row may take."""
        self._model = model
        self._never = torch.tensor(list(never), dtype=torch.long, device=model.device)
        self._padding_id = padding_id
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.rows: list[Row] = []
        self._cache: DynamicCache | None = None
        self._mask = self._tensor([])  # (rows, width), 1 where a token stands

    def join(self, groups: Sequence[Sequence[Row]]) -> None:
        """Let rows join, each with its first new token. Rows of a group have the same window, read only once."""
        width = max(len(group[0].window.ids) for group in groups)
        windows = [group[0].window.ids for group in groups]
        mask = self._tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in windows])
        ids = self._tensor([[self._padding_id] * (width - len(ids)) + list(ids) for ids in windows])
        cache = DynamicCache()
        logits = self._forward(ids, mask, (mask.cumsum(-1) - 1).clamp(min=0), cache)
        chosen = self._tensor([number for number, group in enumerate(groups) for _ in group])
        cache.batch_select_indices(chosen)
        rows = [row for group in groups for row in group]
        _append(logits[chosen], rows)
        self._merge(rows, cache, mask[chosen])

    def step(self) -> None:
        """One more token for every row."""
        assert self._cache is not None
        ids = self._tensor([[row.new[-1]] for row in self.rows])
        self._mask = pad(self._mask, (0, 1), value=1)
        logits = self._forward(ids, self._mask, self._mask.sum(-1, keepdim=True) - 1, self._cache)
        _append(logits, self.rows)

    def keep(self, numbers: Sequence[int]) -> None:
        """Let all other rows go, and the padding that only they made necessary."""
        if len(numbers) == len(self.rows):
            return
        self.rows = [self.rows[number] for number in numbers]
        if not self.rows:
            self.clear()
            return
        assert self._cache is not None
        chosen = self._tensor(list(numbers))
        self._cache.batch_select_indices(chosen)
        mask = self._mask[chosen]
        spare = int(mask.argmax(dim=-1).min())
        self._mask = mask[:, spare:]
        for layer in self._layers(self._cache):
            layer.keys, layer.values = layer.keys[:, :, spare:], layer.values[:, :, spare:]

    def clear(self) -> None:
        """Let everything go."""
        self.rows, self._cache, self._mask = [], None, self._tensor([])

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        """Logits (rows, vocabulary) of each row's last position; the cache grows by the width of ``ids``."""
        optional: dict[str, Any] = {"position_ids": positions} if self._takes_positions else {}
        if self._keeps_logits:
            optional["logits_to_keep"] = 1
        with torch.inference_mode():
            output = self._model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **optional)
        logits: torch.Tensor = output.logits[:, -1].index_fill(-1, self._never, -torch.inf)
        return logits

    def _merge(self, rows: Sequence[Row], cache: DynamicCache, mask: torch.Tensor) -> None:
        """The cache lags one token behind the rows: the newest is fed with the next step."""
        self.rows += rows
        if self._cache is None:
            self._cache, self._mask = cache, mask
            return
        width = max(self._mask.shape[1], mask.shape[1])
        self._mask = torch.cat([_widened(self._mask, width, -1), _widened(mask, width, -1)])
        for old, new in zip(self._layers(self._cache), self._layers(cache), strict=True):
            for name in ("keys", "values"):
                both = [_widened(getattr(layer, name), width, -2) for layer in (old, new)]
                setattr(old, name, torch.cat(both))

    @staticmethod
    def _layers(cache: DynamicCache) -> Sequence[Any]:
        layers: Sequence[Any] = cache.layers
        return layers

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._model.device)


def _widened(tensor: torch.Tensor, width: int, dim: int) -> torch.Tensor:
    """Zeros put before what stands in dimension ``dim`` (-1 or -2)."""
    missing = width - tensor.shape[dim]
    return pad(tensor, (missing, 0) if dim == -1 else (0, 0, missing, 0)) if missing else tensor


def _append(logits: torch.Tensor, rows: Sequence[Row]) -> None:
    with torch.inference_mode():
        chosen = choose(logits, rows)
    for row, token in zip(rows, chosen, strict=True):
        row.new.append(token)
