"""The thread of a worker that writes its heartbeat."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from types import TracebackType

from lmbatch.preprocess.heartbeat import heartbeat_key, heartbeat_of, new_worker_name, remove_heartbeats
from lmbatch.preprocess.live import LiveTask
from lmbatch.store import Store, to_json

log = logging.getLogger(__name__)

_FIRST_SECONDS = (
    1.0  # so soon, that one need not wait to see a worker; not at once, as most batches of a test are short
)
_FAREWELL_SECONDS = 5.0  # a store that hangs may keep the last write from ending: the worker does not wait for it


class Pulse:
    """While it is entered, writes what ``live`` says every ``every`` seconds (0: never) under a name of its own."""

    def __init__(self, store: Store, live: LiveTask, every: float) -> None:
        self.worker = new_worker_name()
        self._store, self._live, self._every = store, live, every
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Pulse:
        if self._every > 0:
            self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_FAREWELL_SECONDS)

    def _run(self) -> None:
        beat, pause = 0, min(self._every, _FIRST_SECONDS)
        while not self._stop.wait(pause):
            self._write(beat)
            beat, pause = beat + 1, self._every
        if beat:
            with suppress(Exception):
                remove_heartbeats(self._store, [self.worker])

    def _write(self, beat: int) -> None:
        if not self._live.task:
            return
        try:
            data = to_json(heartbeat_of(self._live, self.worker, beat, self._every))
            self._store.put(heartbeat_key(self.worker), data)
        except Exception as error:  # whatever it is: the task must not suffer from it, and the next one may succeed
            log.debug("no heartbeat: %s", error)
