"""Which tokens sample i is made of: a pure function of (manifest digest, seed, i).

An epoch's token stream is its shards one after the other, T tokens in all. With sequence length L it is cut in
``(T - 1) // L`` samples of L + 1 tokens; the k-th is ``stream[k*L : k*L + L + 1]`` and shares one token with its
successor, so that every token but the very first is predicted once. What is left at the end is less than a sequence.

global     the stream is the shards in the manifest's order, the same in each epoch; one permutation of all samples.
windowed   the shards are permuted for each epoch; a window is ``window_shards`` consecutive shards of that order, and
           the samples that begin in it are permuted among themselves. Windows follow one another, so that only one
           of them (and the shards that its last sample reaches into) must be on local disk.

Global sample number s is number ``s % n`` of epoch ``s // n``. Nothing here knows of ranks or batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from lmbatch.errors import ConfigError
from lmbatch.loader.epoch import Epoch
from lmbatch.loader.permutation import Permutation, round_keys
from lmbatch.loader.stream import Located, Span, TokenStream
from lmbatch.store import Manifest, Split

Shuffle = Literal["global", "windowed"]
_EPOCHS_KEPT = 2  # a batch may lie across two


@dataclass(frozen=True, slots=True)
class Window:
    """Samples that are shuffled among themselves: global numbers ``first`` up to but without ``end``.

    ``number`` counts windows within ``epoch``. In global mode an epoch is one window.
    """

    epoch: int
    number: int
    first: int
    end: int


class SampleOrder:
    """The order of samples. Memory: a few numbers for each shard. Time of a lookup: the same wherever it is."""

    def __init__(
        self,
        shard_tokens: Sequence[int],
        *,
        digest: str,
        seed: int,
        sequence_length: int,
        shuffle: Shuffle,
        window_shards: int,
    ) -> None:
        """``shard_tokens`` are the tokens of each shard of the split, in the manifest's order.

        Raises ConfigError if they do not make one sample.
        """
        self.digest, self.seed = digest, seed
        self.sequence_length = sequence_length
        self._counts = np.asarray(shard_tokens, dtype=np.int64)
        self._window_shards = window_shards if shuffle == "windowed" else None
        self._epochs: dict[int, Epoch] = {}
        self.samples_per_epoch = samples_in(int(self._counts.sum()), sequence_length)
        if not self.samples_per_epoch:
            raise ConfigError(
                f"the split has {int(self._counts.sum())} tokens in {len(self._counts)} shards; one sample of "
                f"data.sequence_length {sequence_length} takes {sequence_length + 1}",
                remedy="lower data.sequence_length, or preprocess more text",
            )

    @classmethod
    def from_manifest(
        cls, manifest: Manifest, split: Split, *, seed: int, sequence_length: int, shuffle: Shuffle, window_shards: int
    ) -> SampleOrder:
        """The order over one split of a corpus."""
        return cls(
            [shard.tokens for shard in manifest.of(split)],
            digest=manifest.digest,
            seed=seed,
            sequence_length=sequence_length,
            shuffle=shuffle,
            window_shards=window_shards,
        )

    def locate(self, sample: int) -> tuple[Span, ...]:
        """The L + 1 tokens of a global sample number, as pieces of shards in the order in which they are read."""
        number, within = divmod(sample, self.samples_per_epoch)
        epoch = self._epoch(number)
        start = int(epoch.permuted(np.array([within]))[0]) * self.sequence_length
        return epoch.stream.spans(start, self.sequence_length + 1)

    def locate_many(self, samples: npt.ArrayLike) -> Located:
        """Where each of ``samples`` (ascending global numbers, 1-D, not empty) begins: many at the cost of few."""
        epochs, within = np.divmod(np.asarray(samples, dtype=np.int64), self.samples_per_epoch)
        parts = []
        for number in np.unique(epochs).tolist():
            epoch = self._epoch(number)
            starts = epoch.permuted(within[epochs == number]) * self.sequence_length
            parts.append(epoch.stream.locate(starts, self.sequence_length + 1))
        return Located.joined(parts)

    def window_of(self, sample: int) -> Window:
        """The window of a global sample number; the next one is that of its ``end``."""
        number, within = divmod(sample, self.samples_per_epoch)
        epoch = self._epoch(number)
        window = int(epoch.windows_at(np.array([within]))[0])
        first, end = epoch.bounds[window : window + 2].tolist()
        return Window(number, window, sample - within + first, sample - within + end)

    def shards_needed(self, window: Window) -> tuple[int, ...]:
        """The shards that the window's samples touch, in the order of the epoch's stream, empty ones left out."""
        first = (window.first - window.epoch * self.samples_per_epoch) * self.sequence_length
        length = (window.end - window.first) * self.sequence_length + 1
        return tuple(span.shard for span in self._epoch(window.epoch).stream.spans(first, length))

    def _epoch(self, number: int) -> Epoch:
        epoch = self._epochs.get(number)
        if epoch is None:
            epoch = self._make_epoch(number)
            if len(self._epochs) >= _EPOCHS_KEPT:
                self._epochs = {}  # a new mapping: another thread may be looking into the old one
            self._epochs[number] = epoch
        return epoch

    def _make_epoch(self, number: int) -> Epoch:
        keys = partial(round_keys, self.digest, self.seed, number)
        shards = np.arange(len(self._counts))
        if self._window_shards is not None:
            shards = Permutation(len(shards), keys("shards"))(shards)
        stream = TokenStream.of(shards, self._counts)
        edges = stream.offsets[: -1 : self._window_shards or len(shards)]
        bounds = np.append(-(-edges // self.sequence_length), self.samples_per_epoch)
        return Epoch(stream, np.minimum(bounds, self.samples_per_epoch), keys)


def samples_in(tokens: int, sequence_length: int) -> int:
    """How many samples of ``sequence_length`` + 1 tokens, overlapping by one, a stream of ``tokens`` is cut into."""
    return max(0, tokens - 1) // sequence_length
