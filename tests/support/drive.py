"""Preprocessing in one process, with the store wrapped as a test likes; and what two stores are compared by."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmbatch.config import PreprocessConfig
from lmbatch.launch import open_target
from lmbatch.preprocess import Plan, Worker, make_plan, merge, open_raw, stages_of, store_plan
from lmbatch.store import Manifest, Store
from lmbatch.tokens import Encoder

_VOLATILE = ("attempt", "seconds", "cpu_seconds", "peak_memory_bytes", "traffic", "input_traffic", "seal")
HELD = Path(__file__).resolve().parents[1] / "cluster" / "held"  # on the Python path of workers: holds each task
_WRITES = ("put", "put_file", "publish", "delete")


class WatchedStore:
    """Passes everything on; ``on_write(number, phase, operation, key)`` sees each write before and after it."""

    def __init__(self, inner: Store, on_write: Callable[[int, str, str, str], None]) -> None:
        self._inner = inner
        self._on_write = on_write
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in _WRITES:
            return method

        def write(key: str, *arguments: Any) -> Any:
            number, self.writes = self.writes, self.writes + 1
            self._on_write(number, "before", name, key)
            result = method(key, *arguments)
            self._on_write(number, "after", name, key)
            return result

        return write


def kill_at(number: int, phase: str) -> Callable[[int, str, str, str], None]:
    """A watcher that pulls the plug (SIGKILL) before or after write ``number``."""

    def watch(now: int, when: str, operation: str, key: str) -> None:
        if (now, when) == (number, phase):
            os.kill(os.getpid(), signal.SIGKILL)

    return watch


def prepare(config: PreprocessConfig, store: Store | None = None) -> tuple[Store, Store, Plan, Encoder]:
    """Plan, and store the plan: (store, raw, plan, encoder)."""
    target = store if store is not None else open_target(config)
    plan, tokenizer = make_plan(config)
    plan = store_plan(target, plan, tokenizer)
    return target, open_raw(plan), plan, Encoder(tokenizer, config.tokenizer.engine)


def preprocess_here(config: PreprocessConfig, store: Store | None = None, shuffle: int | None = None) -> Manifest:
    """The whole job in this process; ``shuffle`` does the tasks of each stage in another order."""
    target, raw, plan, _ = prepare(config, store)
    worker = Worker(target, raw, plan, Path(config.spool or "spool"))
    for stage in stages_of(plan):
        units = list(stage.units)
        if shuffle is not None:
            random.Random(shuffle).shuffle(units)
        for unit in units:
            worker.run(unit.id)
    return merge(target, plan)


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked process; its wait status (``-SIGKILL`` if it was killed)."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def contents(store: Store) -> dict[str, bytes]:
    """Every object by key; receipts without what belongs to the attempt and not to the result.

    Forecasts and heartbeats are left out: they are no part of it, and one may be written while we look.
    """
    found = {}
    for info in store.list():
        if info.key.startswith(("estimates/", "heartbeats/")):
            continue
        data = store.read(info.key)
        if info.key.startswith("receipts/"):
            value = {key: item for key, item in json.loads(data).items() if key not in _VOLATILE}
            data = json.dumps(value, sort_keys=True).encode()
        elif info.key == "plan.json":  # it also says where things lay; its fingerprint says what it is
            data = json.loads(data)["fingerprint"].encode()
        found[info.key] = data
    return found
