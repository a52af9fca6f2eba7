"""Which tokens sample i is made of: a pure function of (manifest digest, seed, i).

An epoch's token stream is its shards one after the other, T tokens in all. With sequence length L it is cut in
``(T - 1) // L`` samples of L + 1 tokens; the k-th is ``stream[k*L : k*L + L + 1]`` and shares one token with its
successor, so that every token but the very first is predicted once. What is left at the end is less than a sequence.

global     the stream is the shards in the manifest's order, the same in each epoch; one permutation of all samples.
windowed   the shards are permuted for each epoch; a window is ``window_shards`` consecutive shards of that order, and
           the samples that begin in it are permuted among themselves. Windows follow one another, so that only one
           of them (and the shards that its last sample reaches into) must be on local disk.

Where documents were cut into examples (manifest.chunking), a sample is one whole example, padded: the stream counts
examples instead of tokens, samples do not overlap, and everything else is the same.

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
        shard_units: Sequence[int],
        *,
        digest: str,
        seed: int,
        sequence_length: int,
        shuffle: Shuffle,
        window_shards: int,
        pad_id: int | None = None,
    ) -> None:
        """``shard_units`` are the tokens of each shard of the split, in the manifest's order.

        With ``pad_id`` they are its examples: then a sample is one of them, padded with that token. Raises ConfigError
        if they do not make one sample.
        """
        self.digest, self.seed = digest, seed
        self.sequence_length, self.pad_id = sequence_length, pad_id
        self._stride, self._overlap = stride_of(sequence_length, pad_id)
        self._counts = np.asarray(shard_units, dtype=np.int64)
        self._window_shards = window_shards if shuffle == "windowed" else None
        self._epochs: dict[int, Epoch] = {}
        self.samples_per_epoch = samples_in(int(self._counts.sum()), self._stride, self._overlap)
        if not self.samples_per_epoch and pad_id is not None:
            raise ConfigError("the split has no example", remedy="lower chunking.length, or preprocess more text")
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
        """The order over one split of a corpus. Raises ConfigError if its examples are longer than a sample."""
        check_length(manifest, sequence_length)
        return cls(
            units_of(manifest, split),
            digest=manifest.digest,
            seed=seed,
            sequence_length=sequence_length,
            shuffle=shuffle,
            window_shards=window_shards,
            pad_id=pad_of(manifest),
        )

    def locate(self, sample: int) -> tuple[Span, ...]:
        """The L + 1 tokens of a global sample number, as pieces of shards in the order in which they are read.

        Where samples are examples, it is one span of one of them.
        """
        number, within = divmod(sample, self.samples_per_epoch)
        epoch = self._epoch(number)
        start = int(epoch.permuted(np.array([within]))[0]) * self._stride
        return epoch.stream.spans(start, self._stride + self._overlap)

    def locate_many(self, samples: npt.ArrayLike) -> Located:
        """Where each of ``samples`` (ascending global numbers, 1-D, not empty) begins: many at the cost of few."""
        epochs, within = np.divmod(np.asarray(samples, dtype=np.int64), self.samples_per_epoch)
        parts = []
        for number in np.unique(epochs).tolist():
            epoch = self._epoch(number)
            starts = epoch.permuted(within[epochs == number]) * self._stride
            parts.append(epoch.stream.locate(starts, self._stride + self._overlap))
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
        first = (window.first - window.epoch * self.samples_per_epoch) * self._stride
        length = (window.end - window.first) * self._stride + self._overlap
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
        bounds = np.append(-(-edges // self._stride), self.samples_per_epoch)
        return Epoch(stream, np.minimum(bounds, self.samples_per_epoch), keys)


def samples_in(units: int, stride: int, overlap: int) -> int:
    """How many samples of ``stride`` + ``overlap`` units, overlapping by the latter, a stream of ``units`` gives."""
    return max(0, units - overlap) // stride


def stride_of(sequence_length: int, pad_id: int | None) -> tuple[int, int]:
    """From one sample to the next, and what both share: in tokens, or in examples where these are padded."""
    return (sequence_length, 1) if pad_id is None else (1, 0)


def units_of(manifest: Manifest, split: Split) -> list[int]:
    """What samples of a split are counted in, for each shard: tokens, or examples where documents were cut."""
    if manifest.chunking is None:
        return [shard.tokens for shard in manifest.of(split)]
    return [shard.sequences or 0 for shard in manifest.of(split)]


def pad_of(manifest: Manifest) -> int | None:
    """What samples are padded with, where documents were cut into examples."""
    return None if manifest.chunking is None else manifest.tokenizer.eod_id


def samples_of(manifest: Manifest, split: Split, sequence_length: int) -> int:
    """The samples of one pass over a split; there may be none."""
    return samples_in(sum(units_of(manifest, split)), *stride_of(sequence_length, pad_of(manifest)))


def check_length(manifest: Manifest, sequence_length: int) -> None:
    """Raises ConfigError, naming both numbers, if an example can be longer than a sample: ``sequence_length`` + 1."""
    if manifest.chunking is not None and manifest.chunking.most > sequence_length + 1:
        most = manifest.chunking.most
        raise ConfigError(
            f"the corpus was cut into examples of up to {most} tokens (chunking.length), but a sample of "
            f"data.sequence_length {sequence_length} has {sequence_length + 1}",
            remedy=f"set data.sequence_length to {most - 1} or more, or preprocess with a smaller chunking.length",
        )
