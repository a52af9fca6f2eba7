"""Text from a model, loaded or still in training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from transformers import PreTrainedTokenizerBase

from lmbatch.config import GenerateConfig
from lmbatch.errors import ConfigError, TokenizerError
from lmbatch.infer.folder import check_export, load_model, load_tokenizer, pick_device, tokenizer_kind
from lmbatch.infer.sampling import evaluating, generation_config, own_seed, penalties, stopping, without
from lmbatch.infer.text import WORDS, tidy_text
from lmbatch.infer.window import Window, fit, warnings_of

log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 32  # prompts times beams; bounds the memory of the cache


@dataclass(frozen=True, slots=True)
class Completion:
    """What came of one prompt. ``ended``: the model itself ended the document."""

    prompt: str
    continuation: str
    tokens: int
    ended: bool

    @property
    def text(self) -> str:
        """Prompt and continuation."""
        return self.prompt + self.continuation


class TextGenerator:
    """Continues prompts with a causal language model of transformers (bare, not a data-parallel wrapper).

    ``tokenizer`` may be a folder. ``context`` is the number of tokens that the model was trained to see at once. The
    model is left in the mode in which it was found, and no global random generator is moved.
    """

    def __init__(
        self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase | Path | str, *, context: int
    ) -> None:
        if context < 2:
            raise ConfigError(f"context = {context}: a prompt token and a new one need a context of 2 at least")
        self._model: Any = model
        self._tokenizer: Any = load_tokenizer(Path(tokenizer)) if isinstance(tokenizer, (Path, str)) else tokenizer
        self._context = context
        self._kind = tokenizer_kind(self._tokenizer)
        self._check_vocabulary()
        self._eod_id = self._find_eod()
        self.never = self._find_never()

    @classmethod
    def from_folder(cls, path: str | Path, *, device: str | None = None) -> Self:
        """Load what :func:`lmbatch.infer.export_model` wrote, on a GPU if there is one.

        Raises UsageError for a folder that is no export, CheckpointError or TokenizerError for a damaged one.
        """
        folder = Path(path)
        check_export(folder)
        tokenizer = load_tokenizer(folder)
        model: Any = load_model(folder)
        context = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or 2**30)
        return cls(model.to(pick_device(device)), tokenizer, context=int(context))

    def generate(self, prompts: Sequence[str], config: GenerateConfig) -> list[str]:
        """Each prompt with its continuation, in the order of the prompts. See :meth:`complete`."""
        return [completion.text for completion in self.complete(prompts, config)]

    @property
    def model(self) -> Any:
        """The model itself."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, of transformers' kind."""
        return self._tokenizer

    @property
    def is_stateful(self) -> bool:
        """Its cache is a state that was rolled up (Mamba and its like), not keys and values by position."""
        return bool(getattr(self._model, "_is_stateful", False))

    @property
    def context(self) -> int:
        """Tokens that the model was trained to see at once."""
        return self._context

    @property
    def eod_id(self) -> int:
        """The token that ends a document."""
        return self._eod_id

    def complete(
        self, prompts: Sequence[str], config: GenerateConfig, *, stop_when: Callable[[], bool] | None = None
    ) -> list[Completion]:
        """Continue each prompt by at most ``config.max_new_tokens`` tokens, or until it ends the document.

        An empty prompt begins a new document. What does not fit into the context is cut, with a warning. Without
        sampling (temperature 0), a prompt's text does not depend on the other prompts; with it, the texts are a
        function of model, prompts and config, its seed included. ``stop_when`` is asked after every token, and ends
        all texts where they are.
        """
        windows = [self._window(number, prompt, config) for number, prompt in enumerate(prompts)]
        produced: dict[int, list[int]] = {}
        with evaluating(self._model), own_seed(config.seed, self._model.device):
            for batch in _batches(windows, max(1, _ROWS_AT_ONCE // config.num_beams)):
                rows = self._generate([windows[number] for number in batch], config, stop_when)
                produced.update(zip(batch, rows, strict=True))
        return [
            self._completion(prompt, window, produced[number])
            for number, (prompt, window) in enumerate(zip(prompts, windows, strict=True))
        ]

    def window(self, prompt: str, max_new_tokens: int) -> Window:
        """The prompt's ids, as far as they fit into the context; an empty prompt begins a new document."""
        ids = self._tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"] if prompt else []
        return fit(ids or [self._eod_id], max_new_tokens=max_new_tokens, context=self._context)

    def continuation(self, prompt: str, window: Window, new: Sequence[int]) -> str:
        """The text of new ids (none of them EOD), as it stands behind the prompt."""
        text = self._continuation(window.ids, new)
        # The prompt's last character tells whether the first space belongs to the text; the prompt itself is not ours.
        last = prompt[-1:].strip()
        return tidy_text(last + text, self._kind)[len(last) :]

    def _window(self, number: int, prompt: str, config: GenerateConfig) -> Window:
        window = self.window(prompt, config.max_new_tokens)
        limits = {"max_new_tokens": config.max_new_tokens, "context": self._context}
        for line in warnings_of(window, **limits, number=number + 1):
            log.warning(line)
        return window

    def _generate(
        self, windows: Sequence[Window], config: GenerateConfig, stop_when: Callable[[], bool] | None = None
    ) -> list[list[int]]:
        """The new ids of each window, padding included; all windows have the same ``new``."""
        width = max(len(window.ids) for window in windows)
        padding = [width - len(window.ids) for window in windows]
        ids = [[self._eod_id] * pad + list(window.ids) for pad, window in zip(padding, windows, strict=True)]
        mask = [[0] * pad + [1] * (width - pad) for pad in padding]
        device = self._model.device
        rows = self._model.generate(
            torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=generation_config(config, new=windows[0].new, eod_id=self._eod_id),
            logits_processor=without(self.never, penalties(config, padding), device=device),
            stopping_criteria=stopping(stop_when),
        )
        new: list[list[int]] = rows[:, width:].tolist()
        return new

    def _completion(self, prompt: str, window: Window, new: list[int]) -> Completion:
        ended = self._eod_id in new
        ids = new[: new.index(self._eod_id)] if ended else new
        return Completion(prompt, self.continuation(prompt, window, ids), len(ids), ended)

    def _continuation(self, before: Sequence[int], new: Sequence[int]) -> str:
        """Decoded together with what stands before: the first token's space or word piece depends on it."""
        if self._kind == WORDS:  # each word with its space: which of them stay is seen together with the prompt's end
            return " " + self._decode(new) if new else ""
        head, whole = self._decode(before), self._decode([*before, *new])
        return whole[len(head) :] if whole.startswith(head) else self._decode(new)

    def _decode(self, ids: Sequence[int]) -> str:
        if self._kind == WORDS:
            return str(self._tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=True))
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _check_vocabulary(self) -> None:
        rows = self._model.get_input_embeddings().weight.shape[0]
        if len(self._tokenizer) > rows:
            raise TokenizerError(
                f"the tokenizer has {len(self._tokenizer)} entries, the model only {rows}",
                remedy="use the tokenizer that the model was trained with",
            )

    def _find_never(self) -> tuple[int, ...]:
        """Ids that are no text: the unknown token, and the rows of a table that is longer than the tokenizer."""
        rows = self._model.get_input_embeddings().weight.shape[0]
        unknown = {self._tokenizer.unk_token_id} - {None, self._eod_id}
        return tuple(sorted(unknown | {*range(len(self._tokenizer), rows)}))

    def _find_eod(self) -> int:
        found = self._model.config.eos_token_id
        if found is None:
            found = self._tokenizer.eos_token_id
        if found is None:
            raise TokenizerError(
                "neither the model nor the tokenizer names a token that ends a document",
                remedy="set eos_token_id in the model's config.json",
            )
        return int(found[0] if isinstance(found, list) else found)


def _batches(windows: Sequence[Window], size: int) -> Iterator[list[int]]:
    """Numbers of windows, grouped by how many tokens may follow, so that no row runs out of the context."""
    numbers = sorted(range(len(windows)), key=lambda number: windows[number].new)
    batch: list[int] = []
    for number in numbers:
        if batch and (len(batch) == size or windows[batch[0]].new != windows[number].new):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
