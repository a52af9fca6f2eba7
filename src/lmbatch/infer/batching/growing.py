"""Text that can be shown while it still grows: no half character, and nothing that is taken back later."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop string, and whether there was one."""
    found = [text.find(string) for string in stop if string in text]
    return (text[: min(found)], True) if found else (text, False)


class GrowingText:
    """The text of ids that arrive one by one, cut at the first stop string.

    ``text_of`` gives the text of all ids so far. Its end may still change: a character's bytes may be incomplete
    (decoded as U+FFFD until then), a space may fall away once its right neighbour is known, and a stop string may have
    begun. So much is held back; :meth:`finish` gives the rest.
    """

    def __init__(self, text_of: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._text_of = text_of
        self._stop = tuple(stop)
        self.shown = ""
        self.stopped = False

    def grow(self, ids: Sequence[int]) -> str:
        """What can be shown beyond what was shown before; ``ids`` are all of the text's ids."""
        text, self.stopped = cut(self._text_of(ids).rstrip("\ufffd "), self._stop)
        return self._show(text if self.stopped else text[: len(text) - self._begun(text)])

    def finish(self, ids: Sequence[int]) -> str:
        """The rest; nothing more will come."""
        return self.end_with(self._text_of(ids))

    def end_with(self, text: str) -> str:
        """The rest, if the whole text is known already."""
        text, self.stopped = cut(text, self._stop)
        return self._show(text)

    def _begun(self, text: str) -> int:
        """Length of the longest end of ``text`` that a stop string begins with."""
        longest = max((len(stop) for stop in self._stop), default=0)
        ends = range(min(longest - 1, len(text)), 0, -1)
        return next((size for size in ends if any(stop.startswith(text[-size:]) for stop in self._stop)), 0)

    def _show(self, text: str) -> str:
        """What stood already is not taken back, even if a decoder has changed its mind about it."""
        more = text[len(self.shown) :]
        self.shown += more
        return more
