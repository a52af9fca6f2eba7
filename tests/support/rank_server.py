"""Runs of several processes, forked from a server that has imported torch and DeepSpeed once.

``python -m support.rank_server`` reads one JSON object a line, ``{"config", "world", "environ", "events"}``, runs
``python -m lmbatch.train`` in ``world`` processes as torchrun would, and answers with their exit codes. ``RankServer``
is the other end of it.
"""

from __future__ import annotations

import errno
import faulthandler
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class RankServer:
    """Starts runs; use as a context manager."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "support.rank_server"], env=environ, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, config: Path, *, world: int, environ: dict[str, str] | None = None, **events: Any) -> list[int]:
        """Exit codes by rank; what they wrote to standard error lies beside the config as ``rank-N.log``.

        Events: ``signal`` = [rank, step, number]; ``poison`` = [rank, step, "loss" or "gradient"]; ``spoil`` =
        [rank, {step: kind}] (support/poison.py); ``draws`` = [rank], whose losses hang on what is drawn at random;
        ``kill_in_save`` = [rank, name of the stage]; ``full_disk`` = [rank]; ``hold_save`` = [rank, step];
        ``leave_in_gather`` = [rank, number of the piece]. Steps count from the attempt's first, those of ``spoil`` from
        the run's.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        job = {"config": str(config), "world": world, "environ": environ or {}, "events": events}
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        codes: list[int] = json.loads(self._server.stdout.readline())
        return codes

    def __enter__(self) -> RankServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.wait()


def logs(config: Path) -> str:
    """What the processes of the last run wrote."""
    return "\n".join(path.read_text() for path in sorted(config.parent.glob("rank-*.log")))


def _environment(rank: int, world: int, port: int) -> dict[str, str]:
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {"ACCELERATE_USE_CPU": "true", **{name: str(value) for name, value in values.items()}}


def _signal(step: int, number: int) -> None:
    from lmbatch.train.engine import Engine

    original, taken = Engine.apply, []

    def apply(self, lr: float) -> None:
        original(self, lr)
        taken.append(lr)
        if len(taken) == step:
            os.kill(os.getpid(), number)

    Engine.apply = apply  # type: ignore[method-assign]


def _poison(step: int, what: str) -> None:
    """A loss that is NaN, or a gradient that is although the loss is not, in the given step of this attempt."""
    from lmbatch.train.engine import Engine

    original, begin, begun = Engine._scaled_loss, Engine.begin, []

    def counted(self, *arguments, **named):
        begun.append(0)
        return begin(self, *arguments, **named)

    def scaled_loss(self, *arguments):
        loss = original(self, *arguments)
        if len(begun) != step:
            return loss
        if what == "loss":
            self._micro_losses[-1] = self._micro_losses[-1] * math.nan
        return loss * math.nan

    Engine.begin, Engine._scaled_loss = counted, scaled_loss  # type: ignore[method-assign]


def _spoil(plan: dict[str, str]) -> None:
    from support.poison import poison

    poison({int(step): kind for step, kind in plan.items()})


def _draws() -> None:
    """A model whose code draws from Python's and numpy's generators, as that of some in transformers does."""
    import random

    import numpy as np

    from lmbatch.train.engine import Engine

    original = Engine._scaled_loss

    def scaled_loss(self, *arguments):
        return original(self, *arguments) * (0.5 + random.random() * np.random.random())

    Engine._scaled_loss = scaled_loss  # type: ignore[method-assign]


def _kill_in_save(stage: str) -> None:
    from lmbatch.checkpoint import stages

    def die(reached) -> None:
        if reached.name == stage:
            os.kill(os.getpid(), signal.SIGKILL)

    stages.on_stage = die


def _note_reductions(path: str) -> None:
    """Write a line for each step: dtype and size of every tensor that is reduced between its begin and its end."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from lmbatch.train.engine import Engine

    begin = Engine.begin

    class Reductions(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.sent: list[tuple[str, int]] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.namespace == "c10d" and "reduce" in str(func):
                tensors = next(value for value in reversed(args[:2]) if isinstance(value, list | tuple | torch.Tensor))
                flat = torch.utils._pytree.tree_leaves(tensors)
                self.sent += [(str(tensor.dtype), tensor.numel()) for tensor in flat]
            return func(*args, **(kwargs or {}))

    def noted(self, *arguments, **named):
        with Reductions() as seen:
            found = begin(self, *arguments, **named)
        with Path(path).open("a") as file:
            file.write(json.dumps(seen.sent) + "\n")
        return found

    Engine.begin = noted  # type: ignore[method-assign]


def _full_disk() -> None:
    """The disk is full once half of the weights are written."""
    from lmbatch.checkpoint import tensors

    original, written = tensors._payload, []

    def payload(*arguments):
        written.append(0)
        if len(written) == 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*arguments)

    tensors._payload = payload


def _hold_save(step: int) -> None:
    """No file of the first save is written before the update of a later ``step`` was applied."""
    from lmbatch.checkpoint import stages
    from lmbatch.train.engine import Engine

    original, taken, applied = Engine.apply, [], threading.Event()

    def apply(self, lr: float) -> None:
        original(self, lr)
        taken.append(lr)
        if len(taken) == step:
            applied.set()

    def hold(stage) -> None:
        if stage is stages.Stage.BEFORE_PAYLOAD and not applied.wait(60):
            raise TimeoutError("training waits for the save")

    Engine.apply = apply  # type: ignore[method-assign]
    stages.on_stage = hold


def _leave_in_gather(piece: int) -> None:
    """The process ends without a word instead of sending its piece of that number."""
    from lmbatch.train.backstage import Backstage

    original, sent = Backstage.send, []

    def send(self, tensor) -> None:
        sent.append(0)
        if len(sent) == piece:
            os._exit(1)
        original(self, tensor)

    Backstage.send = send  # type: ignore[method-assign]


def _train(job: dict[str, Any], rank: int, port: int) -> None:
    os.environ.update(_environment(rank, job["world"], port))
    os.environ.update(job["environ"])
    config = Path(job["config"])
    log = os.open(config.parent / f"rank-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.dump_traceback_later(120, exit=True)  # a run that hangs says where
    from lmbatch.train.__main__ import main
    from lmbatch.train.stop import StopFlag

    actions = {
        "signal": _signal,
        "poison": _poison,
        "spoil": _spoil,
        "draws": _draws,
        "kill_in_save": _kill_in_save,
        "full_disk": _full_disk,
        "note_reductions": _note_reductions,
        "hold_save": _hold_save,
        "leave_in_gather": _leave_in_gather,
    }
    for name, (chosen, *arguments) in job["events"].items():
        if chosen == rank:
            actions[name](*arguments)
    os._exit(main(["--config", str(config)], stop=StopFlag().install()))


def _run(job: dict[str, Any]) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(job["world"]):
        child = os.fork()
        if child == 0:
            _train(job, rank, port)
        children.append(child)
    codes: dict[int, int] = {}
    while len(codes) < len(children):
        pid, status = os.wait()
        codes[pid] = os.waitstatus_to_exitcode(status)
        if codes[pid] < 0:  # as srun --kill-on-bad-exit: nobody waits for the dead
            for other in set(children) - set(codes):
                os.kill(other, signal.SIGKILL)
    return [codes[child] for child in children]


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    import deepspeed.runtime.zero.muon.original_muon
    import deepspeed.runtime.zero.stage3  # noqa: F401

    import lmbatch.infer
    import lmbatch.train.deepspeed_launch
    import lmbatch.train.worker
    import lmbatch.train.zero_engine  # noqa: F401

    for line in sys.stdin:
        answers.write(json.dumps(_run(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
