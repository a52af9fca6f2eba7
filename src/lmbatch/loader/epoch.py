"""One pass over the data: its token stream, its windows, and the permutation in each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lmbatch.loader.permutation import Permutation, UInts
from lmbatch.loader.stream import Ints, TokenStream

_PERMUTATIONS_KEPT = 4


class Epoch:
    """``bounds[w]`` is the first sample of window w, counted within the epoch; the last bound is the epoch's end."""

    def __init__(self, stream: TokenStream, bounds: Ints, keys: Callable[[str], UInts]) -> None:
        self.stream = stream
        self.bounds = bounds
        self._keys = keys
        self._permutations: dict[int, Permutation] = {}

    def permuted(self, samples: Ints) -> Ints:
        """The place in the stream, in samples, of the ``samples``-th ones in shuffled order (1-D)."""
        windows = self.windows_at(samples)
        places = np.empty_like(samples)
        for window in np.unique(windows).tolist():
            chosen, first = windows == window, self.bounds[window]
            places[chosen] = first + self._permutation(window)(samples[chosen] - first)
        return places

    def windows_at(self, samples: Ints) -> Ints:
        """The window of each sample; windows without samples are passed over."""
        found: Ints = np.searchsorted(self.bounds, samples, side="right") - 1
        return found

    def _permutation(self, window: int) -> Permutation:
        permutation = self._permutations.get(window)
        if permutation is None:
            size = int(self.bounds[window + 1] - self.bounds[window])
            permutation = Permutation(size, self._keys(f"samples of window {window}"))
            if len(self._permutations) >= _PERMUTATIONS_KEPT:
                self._permutations = {}
            self._permutations[window] = permutation
        return permutation
