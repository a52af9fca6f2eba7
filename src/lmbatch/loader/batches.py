"""Batches for one rank, read ahead by a background thread."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import numpy.typing as npt

from lmbatch.errors import ConfigError
from lmbatch.loader.order import SampleOrder
from lmbatch.loader.reader import TokenSource, gather
from lmbatch.loader.stream import Ints, Located

log = logging.getLogger(__name__)
_LOCATE_AT_ONCE = 1024  # samples; the cost of a permutation is in its calls, not in its values
_CLOSE_SECONDS = 5.0
IGNORED = -100  # the label that the loss leaves out


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One forward pass: ``tokens`` is int64, (micro, sequence_length + 1); row i is global sample ``samples[i]``.

    ``lengths`` (int64, 1-D) are the tokens of each row, what follows them being padding; None: nothing is padded.
    """

    first_sample: int
    samples: tuple[int, ...]
    tokens: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64] | None = None

    @property
    def targets(self) -> int:
        """Tokens that are predicted: all but the first of each row, and no padding."""
        if self.lengths is None:
            return int(self.tokens[:, 1:].size)
        return int(self.lengths.sum()) - len(self.lengths)

    @property
    def targets_vary(self) -> bool:
        """May another batch of so many rows have another number of predicted tokens?"""
        return self.lengths is not None

    @property
    def seen(self) -> int:
        """Tokens that the model reads and that count as work done: those that are predicted."""
        return self.targets

    def inputs(self) -> dict[str, npt.NDArray[np.int64]]:
        """What the model is called with, by name. Padding stands behind all that is attended to, so a causal model
        needs no mask for it."""
        return {"input_ids": self.tokens[:, :-1]}

    def rows(self) -> Iterator[npt.NDArray[np.int64]]:
        """What identifies each sample: its tokens, without padding."""
        lengths = [self.tokens.shape[1]] * len(self.samples) if self.lengths is None else self.lengths.tolist()
        return (row[:length] for row, length in zip(self.tokens, lengths, strict=True))

    def labels(self) -> npt.NDArray[np.int64]:
        """What is predicted, already shifted: int64, (micro, sequence_length), IGNORED where it is padding."""
        labels = self.tokens[:, 1:]
        if self.lengths is None:
            return labels
        padding = np.arange(1, self.tokens.shape[1]) >= self.lengths[:, None]
        return np.where(padding, IGNORED, labels)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One optimizer step of one rank. ``first_sample`` is the first of the whole step, over all ranks."""

    first_sample: int
    batches: tuple[Batch, ...]


class BatchLoader:
    """Yields Steps without end, epoch after epoch: step s covers ``batch_size`` samples from ``start_sample +
    s * batch_size`` on, of which rank r reads the r-th of ``world_size`` equal runs, in batches of ``micro``.

    A thread keeps ``prefetch`` steps ready. What goes wrong in it is raised by next(), as it was raised there.
    """

    def __init__(
        self,
        order: SampleOrder,
        reader: TokenSource,
        *,
        batch_size: int,
        micro: int,
        start_sample: int = 0,
        rank: int = 0,
        world_size: int = 1,
        prefetch: int = 4,
        prepare: Callable[[Batch], Batch] | None = None,
    ) -> None:
        """``prepare`` is done to every batch, in the thread. Raises ConfigError if the batch cannot be shared out
        evenly."""
        check_batch(batch_size, micro, world_size)
        self._prepare = prepare
        self._order, self._source = order, reader
        self._batch_size, self._micro = batch_size, micro
        self._per_rank = batch_size // world_size
        self._start, self._offset = start_sample, rank * self._per_rank
        self._held_end = -1
        self._ready: queue.SimpleQueue[Step | BaseException] = queue.SimpleQueue()
        self._room = threading.Semaphore(prefetch)
        self._closed = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="lmbatch-loader", daemon=True)
        self._thread.start()

    @property
    def samples_per_epoch(self) -> int:
        """Samples of one pass over the split."""
        return self._order.samples_per_epoch

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        """The next step. Raises StopIteration after close()."""
        if self._failure is not None:
            raise self._failure
        if self._closed.is_set():
            raise StopIteration
        item = self._ready.get()
        if isinstance(item, BaseException):
            self._failure = item
            raise item
        self._room.release()
        return item

    def close(self) -> None:
        """Ends the thread, whatever it is waiting for. The reader stays open: it belongs to the caller."""
        self._closed.set()
        self._room.release()
        self._ready.put(StopIteration())  # for a consumer that is waiting
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            log.warning("the loader is still fetching a shard; it will stop after that")

    def __enter__(self) -> BatchLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            steps = self._steps()
            while self._room.acquire() and not self._closed.is_set():
                self._ready.put(next(steps))
        except BaseException as error:
            self._ready.put(error)

    def _steps(self) -> Iterator[Step]:
        at_once = max(1, _LOCATE_AT_ONCE // self._per_rank)
        for block in itertools.count(self._start, at_once * self._batch_size):
            firsts = block + self._batch_size * np.arange(at_once)
            samples = (firsts[:, None] + self._offset + np.arange(self._per_rank)).ravel()
            located = self._order.locate_many(samples)
            for number, first in enumerate(firsts.tolist()):
                mine = slice(number * self._per_rank, (number + 1) * self._per_rank)
                yield self._step(first, located[mine])

    def _step(self, first: int, located: Located) -> Step:
        tokens, lengths = self._read(first + self._offset, located)
        batches = []
        for at in range(0, self._per_rank, self._micro):
            rows, sample = slice(at, at + self._micro), first + self._offset + at
            own = None if lengths is None else lengths[rows]
            batch = Batch(sample, tuple(range(sample, sample + self._micro)), tokens[rows], own)
            batches.append(batch if self._prepare is None else self._prepare(batch))
        return Step(first, tuple(batches))

    def _read(self, first: int, located: Located) -> tuple[Ints, Ints | None]:
        """Samples from ``first`` on, window by window, so that never more than one window has to be at hand."""
        out = np.empty((self._per_rank, self._order.sequence_length + 1), np.int64)
        lengths: list[Ints] = []
        done = 0
        while done < self._per_rank:
            self._enter_window(first + done)
            end = min(self._per_rank, self._held_end - first)
            found = self._fill(first + done, located[done:end], out[done:end])
            if found is not None:
                lengths.append(found)
            done = end
        return out, np.concatenate(lengths) if lengths else None

    def _fill(self, first: int, located: Located, out: Ints) -> Ints | None:
        return gather(self._source, located, lambda row: self._order.locate(first + row), out, self._order.pad_id)

    def _enter_window(self, sample: int) -> None:
        if sample < self._held_end:
            return
        window = self._order.window_of(sample)
        following = self._order.window_of(window.end)
        self._source.hold(self._order.shards_needed(window), self._order.shards_needed(following))
        self._held_end = window.end


def check_batch(batch_size: int, micro: int, world_size: int) -> None:
    """Raises ConfigError, naming the numbers, unless ``batch_size`` is a multiple of ``micro * world_size``."""
    if batch_size % (micro * world_size):
        raise ConfigError(
            f"batch.size {batch_size} is not a multiple of batch.micro {micro} × {world_size} processes = "
            f"{micro * world_size}",
            remedy="change batch.micro (it decides no result), the number of processes, or batch.size",
        )
