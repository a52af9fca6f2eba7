"""Fetch in the background what will be needed next."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from lmbatch.errors import LmbatchError

log = logging.getLogger(__name__)
ItemT = TypeVar("ItemT")


class Prefetcher(Generic[ItemT]):
    """One thread that calls ``fetch`` for each wanted item.

    A failure is only logged: whoever needs the item will fetch it again, and gets the error where it can be raised.
    """

    def __init__(self, fetch: Callable[[ItemT], object]) -> None:
        self._fetch = fetch
        self._wanted: deque[ItemT] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def want(self, items: Iterable[ItemT]) -> None:
        """These items in this order, instead of what is still waiting."""
        with self._changed:
            self._wanted = deque(items)
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lmbatch-prefetch", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Starts nothing more. A fetch under way is left to the (daemon) thread; it may take long."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while (item := self._next()) is not None:
            try:
                self._fetch(item)
            except LmbatchError as error:
                log.warning("could not fetch ahead: %s", error.message)

    def _next(self) -> ItemT | None:
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._closed)
            return None if self._closed else self._wanted.popleft()
