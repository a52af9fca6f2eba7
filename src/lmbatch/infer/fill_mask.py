"""What a masked language model puts in place of the masks of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from transformers import PreTrainedTokenizerBase

from lmbatch.errors import TokenizerError, UsageError
from lmbatch.infer.folder import check_export, load_model, load_tokenizer, pick_device
from lmbatch.infer.sampling import evaluating

_ROWS_AT_ONCE = 16  # the logits of one row are context × vocabulary numbers


@dataclass(frozen=True, slots=True)
class Choice:
    """One token for one mask: its text as it reads at that place (a word's leading space included), and its
    probability."""

    token: str
    id: int
    probability: float


@dataclass(frozen=True, slots=True)
class Filled:
    """The choices for each mask of a prompt, likeliest first; ``pieces`` are the texts around the masks."""

    prompt: str
    pieces: tuple[str, ...]
    masks: tuple[tuple[Choice, ...], ...]

    @property
    def best(self) -> str:
        """The prompt with the likeliest token at each mask, each chosen by itself."""
        return _woven(self.pieces, [choices[0].token for choices in self.masks])

    @property
    def text(self) -> str:
        """The prompt with all choices, for people: ``A proper long[ time 31 % | way 8 %].``"""
        return _woven(self.pieces, [f"[{' |'.join(map(_shown, choices))}]" for choices in self.masks])


class MaskFiller:
    """Fills masks with a masked language model of transformers (bare, not a data-parallel wrapper).

    ``tokenizer`` may be a folder. ``context`` is the number of tokens that the model was trained to see at once, the
    first and the last special token included. The model is left in the mode in which it was found.
    """

    def __init__(
        self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase | Path | str, *, context: int
    ) -> None:
        """Raises TokenizerError for a tokenizer without a mask token."""
        self._model: Any = model
        self._tokenizer: Any = load_tokenizer(Path(tokenizer)) if isinstance(tokenizer, (Path, str)) else tokenizer
        self._context = context
        known = self._tokenizer.get_vocab()
        spellings = (self._tokenizer.mask_token, "[MASK]", "<mask>")
        self.mask = next((token for token in spellings if token in known), "")
        if not self.mask:
            raise TokenizerError("the tokenizer has no mask token", remedy="use the folder of a masked model")
        self._mask_id = int(known[self.mask])

    @classmethod
    def from_folder(cls, path: str | Path, *, device: str | None = None) -> Self:
        """Load what :func:`lmbatch.infer.export_model` wrote of a masked model, on a GPU if there is one.

        Raises UsageError for a folder that is no export of one, CheckpointError or TokenizerError for a damaged one.
        """
        folder = Path(path)
        check_export(folder)
        model: Any = load_model(folder, masked=True)
        tokenizer = load_tokenizer(folder)
        return cls(model.to(pick_device(device)), tokenizer, context=int(tokenizer.model_max_length))

    def fill(self, prompts: Sequence[str], *, top_k: int = 5) -> list[Filled]:
        """The ``top_k`` likeliest tokens for each mask of each prompt, in the order of the prompts.

        Several masks are judged at once, each with the others still hidden. Raises UsageError for a prompt without a
        mask or longer than the context.
        """
        rows = [self._row(number, prompt) for number, prompt in enumerate(prompts, 1)]
        most = min(top_k, len(self._tokenizer))
        filled = []
        with evaluating(self._model), torch.no_grad():
            for first in range(0, len(rows), _ROWS_AT_ONCE):
                batch = slice(first, first + _ROWS_AT_ONCE)
                found = self._choices(rows[batch], most)
                filled += [self._filled(prompt, masks) for prompt, masks in zip(prompts[batch], found, strict=True)]
        return filled

    def _row(self, number: int, prompt: str) -> list[int]:
        """The ids as in training: first token, text, last token, whether or not the tokenizer adds them by itself."""
        if self.mask not in prompt:
            raise UsageError(
                f"prompt {number} holds no {self.mask}, so there is nothing to fill",
                remedy=f"write {self.mask} where a token is missing",
            )
        ids: list[int] = self._tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
        config = self._model.config
        row = [config.bos_token_id, *ids, config.eos_token_id]
        if len(row) > self._context:
            raise UsageError(
                f"prompt {number} has {len(row)} tokens with its ends, the model was trained to see {self._context}",
                remedy="shorten it around the mask",
            )
        return row

    def _choices(self, rows: Sequence[list[int]], top_k: int) -> list[list[tuple[Choice, ...]]]:
        width, pad = max(map(len, rows)), self._model.config.pad_token_id
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=self._model.device)
        attended = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=ids.device)
        logits = self._model(input_ids=ids, attention_mask=attended).logits
        at = ids == self._mask_id
        # A vocabulary that was rounded up has rows that no token belongs to.
        chances = logits[at].float()[:, : len(self._tokenizer)].softmax(-1)
        best = chances.topk(top_k)
        choices = [
            tuple(map(self._choice, tokens, values))
            for tokens, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        counts = at.sum(1).tolist()
        ends = torch.cumsum(torch.tensor(counts), 0).tolist()
        return [choices[end - count : end] for end, count in zip(ends, counts, strict=True)]

    def _choice(self, token: int, probability: float) -> Choice:
        text: str = self._tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return Choice(text, token, probability)

    def _filled(self, prompt: str, masks: list[tuple[Choice, ...]]) -> Filled:
        pieces = prompt.split(self.mask)
        # A mask token that takes the spaces before it stands for a word with its space.
        if masks and getattr(self._mask_entry(), "lstrip", False):
            pieces = [*(piece.rstrip() for piece in pieces[:-1]), pieces[-1]]
        return Filled(prompt, tuple(pieces), tuple(masks))

    def _mask_entry(self) -> Any:
        return self._tokenizer.added_tokens_decoder.get(self._mask_id)


def _woven(pieces: Sequence[str], between: Sequence[str]) -> str:
    return "".join(text for pair in zip(pieces, [*between, ""], strict=True) for text in pair)


def _shown(choice: Choice) -> str:
    return f"{choice.token} {choice.probability:.0%}".replace("%", " %")
