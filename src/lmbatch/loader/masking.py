"""Hiding tokens for masked language modelling: a pure function of (seed, sample number, place in the sample).

::

    Batch: tokens of each sample, end included ──Masking──▶ MaskedBatch: inputs, labels, who is attended to
                                          Philox(seed, number of the sample)

A sample's global number counts on from epoch to epoch, so it names epoch and place in one, and the same text is
masked anew in each epoch. Nothing else goes in: a resume, another number of processes, another micro-batch and
another numpy give the same masks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from lmbatch.config import ObjectiveConfig
from lmbatch.loader.batches import IGNORED, Batch
from lmbatch.loader.stream import Ints
from lmbatch.store import SpecialTokens

_DRAWS = 3  # of each token: is it predicted, what is seen in its place, which random token
_WIDTHS = 8  # rows are padded to a multiple of this


class Purpose(IntEnum):
    """Which masks: training's, or the fixed ones of the validation split, whose samples have numbers of their own."""

    TRAINING = 0
    VALIDATION = 1


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MaskedBatch(Batch):
    """A batch whose samples stand between a first and a last token, with some tokens hidden.

    ``shown`` and ``hidden`` are int64, (micro, width), width at most the sequence length: what the model sees, and
    the tokens that it must find, IGNORED elsewhere. ``sizes`` (int64, 1-D) are the tokens of each row that are no
    padding; None: all of them are text.
    """

    shown: Ints
    hidden: Ints
    sizes: Ints | None

    @classmethod
    def nothing(cls, width: int) -> MaskedBatch:
        """One row of which nothing is predicted."""
        row = np.zeros((1, width), np.int64)
        return cls(first_sample=0, samples=(0,), tokens=row, shown=row, hidden=np.full_like(row, IGNORED), sizes=None)

    @property
    def targets(self) -> int:
        """Tokens that are predicted."""
        return int((self.hidden != IGNORED).sum())

    @property
    def targets_vary(self) -> bool:
        """They do: tokens are drawn."""
        return True

    @property
    def seen(self) -> int:
        """Tokens that the model reads, without padding."""
        return int(self.shown.size if self.sizes is None else self.sizes.sum())

    def inputs(self) -> dict[str, Ints]:
        """``attention_mask`` is there only where a row may be padded."""
        if self.sizes is None:
            return {"input_ids": self.shown}
        attended = np.arange(self.shown.shape[1]) < self.sizes[:, None]
        return {"input_ids": self.shown, "attention_mask": attended.astype(np.int64)}

    def labels(self) -> Ints:
        """In place, not shifted."""
        return self.hidden

    def rows(self) -> Iterator[Ints]:
        """What identifies each sample: what is shown and what is hidden of it, without padding."""
        sizes = [self.shown.shape[1]] * len(self.shown) if self.sizes is None else self.sizes.tolist()
        for shown, hidden, size in zip(self.shown, self.hidden, sizes, strict=True):
            yield np.concatenate([shown[:size], hidden[:size]])


class Masking:
    """Masks batches. ``seed`` is the run's. Safe to call from any thread."""

    def __init__(self, config: ObjectiveConfig, special: SpecialTokens, *, seed: int, purpose: Purpose) -> None:
        self._config, self._special, self._purpose = config, special, purpose
        self._seed = seed % 2**64
        self._most = below(config.mask_share)
        self._is_special = np.zeros(max(special.size, *special.ids) + 1, dtype=np.bool_)
        self._is_special[list(special.ids)] = True
        # As in fairseq's RoBERTa, no special token comes in at random (Hugging Face's collator draws those too).
        self._ordinary = np.setdiff1d(np.arange(special.size), special.ids)

    def __call__(self, batch: Batch) -> MaskedBatch:
        """``batch`` as the model sees it: each row's tokens but the last column behind the first token.

        The last column holds padding, or in packed data the first token of the next sample. Rows are as wide as the
        longest one of an example corpus needs, for most lines are far shorter than the model could take.
        """
        sizes = None if batch.lengths is None else batch.lengths + 1
        width = batch.tokens.shape[1]
        if sizes is not None:
            width = min(width, -(-int(sizes.max()) // _WIDTHS) * _WIDTHS)
        shown = np.full((len(batch.tokens), width), self._special.first_id, np.int64)
        shown[:, 1:] = batch.tokens[:, : width - 1]
        if sizes is not None:
            shown[np.arange(width) >= sizes[:, None]] = self._special.pad_id
        hidden = np.full_like(shown, IGNORED)
        draws = Draws(self._seed, self._purpose)  # of this call, so that threads do not share it
        for row, sample in enumerate(batch.samples):
            size = width if sizes is None else int(sizes[row])
            self._mask(shown[row, 1:size], hidden[row, 1:size], draws.of(sample, size - 1))
        return MaskedBatch(
            first_sample=batch.first_sample, samples=batch.samples, tokens=batch.tokens, lengths=batch.lengths,
            shown=shown, hidden=hidden, sizes=sizes,
        )  # fmt: skip

    def _mask(self, shown: Ints, hidden: Ints, draws: npt.NDArray[np.uint64]) -> None:
        """Mask one sample's tokens in place."""
        config = self._config
        chosen = self._chosen(shown, draws[:, 0])
        found = shown[chosen]
        hidden[chosen] = found
        way = uniform(draws[chosen, 1])
        random = (way >= config.hidden_share) & (way < config.hidden_share + config.random_share)
        found[random] = self._ordinary[(draws[chosen[random], 2] % np.uint64(len(self._ordinary))).astype(np.int64)]
        found[way < config.hidden_share] = self._special.mask_id
        shown[chosen] = found

    def _chosen(self, shown: Ints, draws: npt.NDArray[np.uint64]) -> Ints:
        """The places of the tokens that are predicted."""
        chosen = np.flatnonzero(draws < self._most)
        chosen = chosen[~self._is_special[shown[chosen]]]
        if not len(chosen) and len(ordinary := np.flatnonzero(~self._is_special[shown])):
            chosen = ordinary[[uniform(draws[ordinary]).argmin()]]  # as in BERT: a short sample teaches something too
        return chosen


class Draws:
    """Raw 64-bit numbers of the counter-based generator Philox 4×64-10 (Salmon et al., SC11), for one thread.

    Its key is (seed, sample), its counter begins at (0, 0, 0, purpose). The bits are those of the generator itself,
    which numpy promises to keep, not of distributions, which it may change (NEP 19).
    """

    def __init__(self, seed: int, purpose: int) -> None:
        key, counter = np.array([seed, 0], np.uint64), np.array([0, 0, 0, purpose], np.uint64)
        # Giving it another state takes a twentieth of the time that making another generator does.
        self._generator = np.random.Philox(counter=counter, key=key)
        self._state = self._generator.state
        self._seed = seed

    def of(self, sample: int, tokens: int) -> npt.NDArray[np.uint64]:
        """Those of one sample, (tokens, 3)."""
        self._state["state"]["key"] = np.array([self._seed, sample], np.uint64)
        self._generator.state = self._state
        raw: npt.NDArray[np.uint64] = self._generator.random_raw(tokens * _DRAWS)
        return raw.reshape(tokens, _DRAWS)


def below(share: float) -> np.uint64:
    """The raw number from which on `uniform` of it is not below ``share``, which is less than 1."""
    return np.uint64(math.ceil(share * 2.0**53) << 11)


def uniform(raw: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """53 bits of each as a number in [0, 1)."""
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
