"""Work that goes on behind the one who asked for it, one piece at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Behind:
    """A thread that does one piece of work and ends. What the work raises is kept until somebody asks.

    ``on_failure`` is called in that thread as soon as a piece of work has failed. The thread is a daemon: an attempt
    that must end does not wait for a disk or a store that hangs.
    """

    def __init__(self, name: str, *, on_failure: Callable[[], None] = lambda: None) -> None:
        self._name, self._on_failure = name, on_failure
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    @property
    def busy(self) -> bool:
        """Is a piece of work not through yet?"""
        return self._thread is not None and self._thread.is_alive()

    @property
    def error(self) -> Exception | None:
        """What the first piece of work that failed has raised."""
        return self._error

    def start(self, work: Callable[[], None]) -> None:
        """Begin ``work``; the piece before must be through."""
        assert not self.busy, f"{self._name}: one at a time"
        self._thread = threading.Thread(target=self._run, args=(work,), name=self._name, daemon=True)
        self._thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is through, for at most ``seconds``. False: it is not."""
        if self._thread is not None:
            self._thread.join(seconds)
        return not self.busy

    def take_error(self) -> Exception | None:
        """The error, which is forgotten by that."""
        error, self._error = self._error, None
        return error

    def fail(self, error: Exception) -> None:
        """Keep an error, unless there is one, and tell of it; for work that goes on all the same."""
        self._error = self._error or error
        self._on_failure()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # it belongs to the thread that asked for the work
            self.fail(error)
