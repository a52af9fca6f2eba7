"""One run of the storm: its folder and mirror, the attempts at it, and what was done to it."""

from __future__ import annotations

import multiprocessing
import shutil
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from random import Random
from typing import Any

import psutil

from lmbatch.store import Store, open_store
from support.checkpoint_storm.child import Attempt, Strike, attempt
from support.checkpoint_storm.disk import SmallDisk
from support.checkpoint_storm.survey import Survey, receipts, survey
from support.fault_proxy import FaultProxy
from support.tiny_run import tiny_settings, write_config

STEPS = 12
NAME = "tiny"
CHANGES = {
    "model": {"type": "gpt2", "config": {"n_layer": 1, "n_embd": 16, "n_head": 2}},
    "data": {"sequence_length": 16},
    "batch": {"size": 4, "micro": 2},
    "steps": STEPS,
    "evaluate": {"every": 4, "batches": 2},
    "samples": {"every": 6, "prompts": ["一"], "generate": {"max_new_tokens": 4, "temperature": 0}},
}


class BadOutcomeError(Exception):
    """What must never happen. ``kind`` is the column of the table."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


@dataclass(frozen=True)
class Ended:
    """How an attempt ended: its exit code (minus the signal that killed it), and what it wrote."""

    code: int
    said: str
    pid: int

    @property
    def reason(self) -> str:
        """The message that a user is shown; empty if there is none."""
        return self.said[self.said.rfind("\nerror: ") + 1 :] if "\nerror: " in "\n" + self.said else ""


@dataclass(frozen=True)
class Surroundings:
    """What all runs of a storm share. ``corpus`` is the URI of the shards, ``s3`` that of a bucket."""

    context: ForkServerContext
    corpus: str
    s3: str
    proxy: FaultProxy
    mounts: bool

    @classmethod
    def around(cls, corpus: str, s3: str, proxy: FaultProxy, *, mounts: bool) -> Surroundings:
        """With a server to fork from that has imported everything and done nothing."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["support.checkpoint_storm.warm"])
        return cls(context, corpus, s3, proxy, mounts)

    def cpu_seconds(self) -> float:
        """What all attempts so far have computed."""
        times = psutil.Process(forkserver._forkserver._forkserver_pid).cpu_times()
        return times.children_user + times.children_system


@dataclass
class Run:
    """``mirror`` is ``none``, ``folder`` or ``s3``. ``lot`` decides whatever is left to chance."""

    around: Surroundings
    folder: Path
    lot: Random
    mirror: str
    asynchronous: bool | None = None  # None: this version saves in one way only
    number: int = 0
    ended: list[Ended] = field(default_factory=list)
    damaged: dict[str, set[str]] = field(default_factory=lambda: {"run": set(), "mirror": set()})
    lost: bool = False  # the run folder, once
    may_refuse: bool = False  # although there is a valid checkpoint
    disk: SmallDisk | None = None
    _started: list[ForkServerProcess] = field(default_factory=list)
    _undo: list[tuple[Store, str, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.parent = self.folder / "runs"
        self.run_dir = self.parent / NAME
        self.config = self.folder / "config.yaml"
        write_config(self.config, self._settings())

    def _settings(self) -> dict[str, Any]:
        save: dict[str, Any] = {"every": 3}
        if self.mirror != "none":
            save["store"] = self._mirror_uri
        if self.asynchronous is not None:
            save["asynchronous"] = self.asynchronous
        return tiny_settings(self.around.corpus, self.parent, **CHANGES, save=save)

    @property
    def _mirror_uri(self) -> str:
        return f"{self.around.s3}/{self.number}" if self.mirror == "s3" else str(self.folder / "mirror")

    def store(self, place: str) -> Store:
        """The run folder (``run``) or the mirror, reached by a way without faults."""
        return open_store(str(self.run_dir) if place == "run" else f"{self._mirror_uri}/{NAME}")

    @property
    def places(self) -> tuple[str, ...]:
        """Where checkpoints may lie."""
        return ("run",) if self.mirror == "none" else ("run", "mirror")

    def look(self) -> dict[str, Survey]:
        """What is there. Raises BadOutcomeError for a receipt that names what is not there."""
        found = {place: survey(self.store(place), self.damaged[place]) for place in self.places}
        if torn := [line for one in found.values() for line in one.torn]:
            raise BadOutcomeError("TORN COMMIT", "; ".join(torn))
        return found

    # ── attempts ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def attempt(self, *strikes: Strike, largest_file: int | None = None) -> Ended:
        """Train until it ends by itself, or by what strikes it."""
        return self.wait(self.start(*strikes, largest_file=largest_file))

    def start(self, *strikes: Strike, largest_file: int | None = None) -> tuple[ForkServerProcess, Path]:
        """A process that trains, and its log."""
        log = self.folder / f"attempt-{len(list(self.folder.glob('attempt-*')))}" / "log"
        log.parent.mkdir()
        environ = {"AWS_ENDPOINT_URL": self.around.proxy.endpoint}
        order = Attempt(self.config, self.run_dir, log, strikes, environ, largest_file)
        process = self.around.context.Process(target=attempt, args=(order,))
        process.start()
        self._started.append(process)
        return process, log

    def wait(self, started: tuple[ForkServerProcess, Path]) -> Ended:
        """How it ended. Raises BadOutcomeError if it hung."""
        process, log = started
        process.join()
        assert process.exitcode is not None
        assert process.pid is not None
        said = log.read_text(errors="replace") if log.exists() else ""
        self.ended.append(Ended(process.exitcode, said, process.pid))
        if "Timeout (" in said:
            raise BadOutcomeError("HUNG", said[-2000:])
        return self.ended[-1]

    def train_until_stopped(self, after: int) -> None:
        """An attempt that is stopped after that many steps, and has saved."""
        ended = self.attempt(Strike("step", after, "SIGTERM"))
        if ended.code != 75:
            raise BadOutcomeError(
                "UNCLEAR", f"a stop was asked for, and the exit code is {ended.code}: {ended.said[-800:]}"
            )

    # ── damage ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def damage(self, place: str, key: str, how: str) -> None:
        """Spoil an object: ``flip`` a bit of one byte, ``cut`` it at some byte, ``delete`` it, make it ``newer``."""
        store = self.store(place)
        data = store.read(key)
        self._undo.append((store, key, data))
        self.damaged[place].add(key)
        if how == "delete":
            store.delete(key)
        else:
            store.put(key, spoilt(data, how, self.lot))

    def heal(self) -> None:
        """Put everything back as it was."""
        for store, key, data in reversed(self._undo):
            store.put(key, data)
        self._undo.clear()
        self.damaged = {"run": set(), "mirror": set()}

    def unsave(self, place: str) -> None:
        """Delete the newest receipt: the step is then one that was never saved."""
        self.store(place).delete(receipts(self.store(place))[-1][0])

    def lose_run_folder(self) -> None:
        """As if the disk was another one."""
        shutil.rmtree(self.run_dir)
        self.damaged["run"].clear()
        self._undo = [entry for entry in self._undo if not entry[0].uri.endswith(str(self.run_dir))]
        self.lost = True

    def calm(self) -> None:
        """No more trouble with the store and the disk."""
        self.around.proxy.calm()
        if self.disk is not None:
            self.disk.grow(65536)

    def close(self, *, keep: bool) -> None:
        """Give back what it holds; with ``keep`` its folder is left to be looked at."""
        for process in self._started:  # one that waits for another would do so for ever
            process.kill()
            process.join()
        self.calm()
        if keep and self.disk is not None:
            shutil.copytree(self.parent, self.folder / "was-on-the-small-disk")
        if self.disk is not None:
            self.disk.close()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def spoilt(data: bytes, how: str, lot: Random) -> bytes:
    """The same bytes, but for what ``damage`` says."""
    if how == "flip":
        place = lot.randrange(len(data))
        return data[:place] + bytes([data[place] ^ 1 << lot.randrange(8)]) + data[place + 1 :]
    if how == "cut":
        return data[: lot.randrange(len(data))]
    assert how == "newer"
    return data.replace(b'"format_version": 1', b'"format_version": 2', 1)
