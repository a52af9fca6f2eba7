"""From a GenerateConfig to transformers' settings, without a trace in the global state."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
    SuppressTokensLogitsProcessor,
)

from lmbatch.config import GenerateConfig


class WithoutPadding(LogitsProcessor):
    """Shows another processor each row without its left padding.

    Otherwise the padding token would count as said before, and a prompt's text would depend on its neighbours.
    """

    def __init__(self, inner: LogitsProcessor, padding: Sequence[int]) -> None:
        self._inner = inner
        self._padding = padding  # by prompt

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:
        """(rows, length) ids and (rows, vocabulary) scores; beams of one prompt are neighbouring rows."""
        beams = input_ids.shape[0] // len(self._padding)
        rows = [
            self._inner(input_ids[row : row + 1, self._padding[row // beams] :], scores[row : row + 1])
            for row in range(input_ids.shape[0])
        ]
        return torch.cat(rows)


def penalties(config: GenerateConfig, padding: Sequence[int]) -> LogitsProcessorList:
    """The processors that look at what was said before."""
    wanted: list[LogitsProcessor] = []
    if config.repetition_penalty != 1.0:
        wanted.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if config.no_repeat_ngram_size:
        wanted.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    return LogitsProcessorList([WithoutPadding(inner, padding) for inner in wanted])


def without(never: Sequence[int], others: LogitsProcessorList, *, device: torch.device) -> LogitsProcessorList:
    """The processors behind one that makes the ids ``never`` impossible."""
    if not never:
        return others
    return LogitsProcessorList([SuppressTokensLogitsProcessor(list(never), device=str(device)), *others])


def generation_config(config: GenerateConfig, *, new: int, eod_id: int) -> GenerationConfig:
    """Settings of one batch: ``new`` tokens at most, ended by EOD. Temperature 0 takes the likeliest token or beam.

    What is left unset would be filled in from the model's own settings, so sampling names all three of its own.
    """
    kind: Any = GenerationConfig
    values: dict[str, Any] = {"do_sample": config.temperature > 0}
    if config.temperature > 0:
        values |= {"temperature": config.temperature, "top_k": config.top_k, "top_p": config.top_p}
    if config.num_beams > 1:
        values["early_stopping"] = config.early_stopping
    settings: GenerationConfig = kind(
        max_new_tokens=new,
        num_beams=config.num_beams,
        bos_token_id=eod_id,
        eos_token_id=eod_id,
        pad_token_id=eod_id,
        use_cache=True,
        **values,
    )
    return settings


class StopWhen(StoppingCriteria):
    """Ends every row as soon as a question is answered with yes; it is asked after every token."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.Tensor:
        """(rows,) of bool."""
        return torch.full((input_ids.shape[0],), self._asked(), dtype=torch.bool, device=input_ids.device)


def stopping(asked: Callable[[], bool] | None) -> StoppingCriteriaList:
    """Nothing, or a question that ends the texts."""
    return StoppingCriteriaList([] if asked is None else [StopWhen(asked)])


@contextlib.contextmanager
def own_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers from ``seed`` inside; outside, the generators stand where they stood before."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """No dropout inside; afterwards each module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
