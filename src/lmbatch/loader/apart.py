"""Documents of one sample kept apart: none sees another, and each begins at position 0.

::

    Batch: … 5 EOD 8 3 9 EOD 4 …  ──Apart──▶  ApartBatch: positions … 2 3 0 1 2 3 0 …; after an EOD nothing is predicted

transformers makes the block-diagonal mask from positions that begin again (``masking_utils``: packed sequences). From
the same positions it would tell the variable-length kernels of ``flash_attention_2`` where documents begin, but only in
a batch of one row (``modeling_flash_attention_utils._is_packed_sequence``): so the two are not allowed together.
Where examples are padded (chunking.mode best_fit), their padding goes on as one more document, which nothing looks at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmbatch.loader.batches import IGNORED, Batch
from lmbatch.loader.stream import Ints


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ApartBatch(Batch):
    """A batch of samples in which ``eod_id`` ends a document, and what follows it begins another."""

    eod_id: int

    @property
    def targets(self) -> int:
        """Tokens that are predicted: all but the first of each row and of each document, and no padding."""
        return int(self._predicted.sum())

    @property
    def seen(self) -> int:
        """Tokens that the model reads, without padding."""
        shown = self.tokens.shape[1] - 1
        return int(self.tokens[:, 1:].size if self.lengths is None else np.minimum(self.lengths, shown).sum())

    @property
    def targets_vary(self) -> bool:
        """They do: each document has one more."""
        return True

    def inputs(self) -> dict[str, Ints]:
        """``position_ids`` count from 0 in each document, and in the first row's piece of one."""
        shown = self.tokens[:, :-1]
        return {"input_ids": shown, "position_ids": positions(shown, self.eod_id, self.lengths)}

    def labels(self) -> Ints:
        """Already shifted; IGNORED for the first token of a document, which nothing before it tells, and padding."""
        labels = self.tokens[:, 1:].copy()
        labels[~self._predicted] = IGNORED
        return labels

    @property
    def _predicted(self) -> npt.NDArray[np.bool_]:
        inside: npt.NDArray[np.bool_] = self.tokens[:, :-1] != self.eod_id
        if self.lengths is not None:
            inside &= np.arange(1, self.tokens.shape[1]) < self.lengths[:, None]
        return inside


def positions(tokens: Ints, eod_id: int, lengths: Ints | None = None) -> Ints:
    """The place of each token in its document, (rows, length) as ``tokens``; a document goes up to its EOD.

    What stands behind the ``lengths`` tokens of a row is one document, whatever it is.
    """
    begins = np.zeros(tokens.shape, np.bool_)
    begins[:, 1:] = tokens[:, :-1] == eod_id
    if lengths is not None:
        begins &= np.arange(tokens.shape[1]) <= lengths[:, None]
    begins[:, :1] = True
    starts = np.flatnonzero(begins)
    found: Ints = np.arange(begins.size) - np.repeat(starts, np.diff(starts, append=begins.size))
    return found.reshape(tokens.shape)


@dataclass(frozen=True, slots=True)
class Apart:
    """Makes batches ApartBatches."""

    eod_id: int

    def __call__(self, batch: Batch) -> ApartBatch:
        """``batch``, its documents kept apart. Only for samples of several documents, each ended by EOD."""
        return ApartBatch(
            first_sample=batch.first_sample, samples=batch.samples, tokens=batch.tokens, lengths=batch.lengths,
            eod_id=self.eod_id,
        )  # fmt: skip
