"""The runs that bench_checkpoint.py measures, each a process of its own, or several.

Before a save is timed everything that is dirty goes to the disk, so that none pays for the
one before it.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from lmbatch.checkpoint import Checkpoints
from lmbatch.config import TrainConfig, load_config
from lmbatch.store import open_store
from lmbatch.train import StopFlag, train
from lmbatch.train.attempts import read_attempts
from lmbatch.train.loop import Loop
from lmbatch.train.metrics import read_metrics, save_rows
from lmbatch.train.recorder import Recorder


def timed(action: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def stalls(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds that training stands still for each save, but the last; with ``--theirs`` DeepSpeed's own of the same."""
    found: dict[str, list[float]] = {"ours": [], "theirs": [], "steps": []}
    original, note = Loop._save, Recorder.train

    def save(loop: Any) -> None:
        if options.theirs is not None:
            os.sync()
            engine, tag = loop.engine._model, f"step-{loop.position.step}"
            found["theirs"].append(timed(lambda: engine.save_checkpoint(options.theirs, tag=tag)))
        os.sync()
        found["ours"].append(timed(lambda: original(loop)))
        if options.theirs is not None and loop.recorder is not None:  # all processes are through by now
            shutil.rmtree(Path(options.theirs) / tag)

    def record(recorder: Any, row: dict[str, Any]) -> None:
        found["steps"].append(row["seconds"])
        note(recorder, row)

    Loop._save, Recorder.train = save, record  # type: ignore[method-assign]
    train(load_config(TrainConfig, options.config))
    return {name: values[:-1] for name, values in found.items()}


def resumes(options: argparse.Namespace) -> list[float]:
    """Seconds from the call of ``train`` to the end of the first step, at each position: a step, by its number.

    What would have been saved there is the checkpoint of step 1 with another position.
    """
    config = load_config(TrainConfig, options.config)
    run_dir = Path(config.run.dir) / config.run.name
    note, stop = Recorder.train, StopFlag()

    def record(recorder: Any, row: dict[str, Any]) -> None:
        note(recorder, row)
        stop.request("the bench")

    Recorder.train = record  # type: ignore[method-assign]
    found = []
    for step in (0, *options.positions):
        stop = StopFlag()
        if step:
            _pretend(run_dir, step, config.batch.size)
        gc.collect()  # a collection of all that the imports have left takes longer than a resume
        train(config, stop, started=time.monotonic())
        seconds = read_attempts(run_dir)[-1].seconds_to_first_step
        assert seconds is not None
        found.append(seconds)
    return found[1:]


def _pretend(run_dir: Path, step: int, batch: int) -> None:
    """A valid checkpoint of ``step``, with the state of the newest one."""
    checkpoints = Checkpoints(open_store(str(run_dir)))
    newest, _ = checkpoints.newest_valid()
    assert newest is not None
    samples = step * batch
    facts = newest.facts.model_copy(
        update={
            "step": step,
            "samples_consumed": samples,
            "loader": {**newest.facts.loader, "samples_consumed": samples},
        }
    )
    source = newest.folder
    checkpoints.save(facts, lambda folder: shutil.copytree(source, folder, dirs_exist_ok=True) and None)


def stored(options: argparse.Namespace) -> dict[str, float]:
    """Seconds until the newest checkpoint is chosen, verified and at hand: from the disk, and from the store alone.

    ``writing`` is what its save took behind the training, its sha256 included; ``hashing`` that sha256 alone.
    """
    config = load_config(TrainConfig, options.config)
    train(config)
    run_dir = Path(config.run.dir) / config.run.name
    (saved,) = save_rows(read_metrics(run_dir))
    mirror = open_store(f"{config.save.store}/{config.run.name}")
    found: dict[str, float] = {"writing": saved["write_seconds"]}
    with Checkpoints(open_store(str(run_dir)), mirror=mirror) as checkpoints:
        found["local"] = timed(checkpoints.newest_valid)
        size = sum(path.stat().st_size for path in _payload(run_dir))
        found["hashing"] = sum(map(_hashing, _payload(run_dir)))
        shutil.rmtree(run_dir / "checkpoints")
    with Checkpoints(open_store(str(run_dir)), mirror=mirror) as checkpoints:
        found["store"] = timed(checkpoints.newest_valid)
    return found | {"bytes": float(size)}


def _payload(run_dir: Path) -> Iterator[Path]:
    newest = max((run_dir / "checkpoints").glob("step-*"))
    yield from (path for path in newest.glob("attempt-*/*") if path.is_file())


def _hashing(path: Path) -> float:
    """Of bytes that are in memory already."""
    data = path.read_bytes()
    return timed(lambda: hashlib.sha256(data).digest())


def trainer(options: argparse.Namespace) -> Any:
    """transformers' Trainer, whose imports are not ours to pay for."""
    import checkpoint_peers

    return checkpoint_peers.stalls(options) if options.what == "trainer-stalls" else checkpoint_peers.resumes(options)


WORK = {"stalls": stalls, "resumes": resumes, "stored": stored, "trainer-stalls": trainer, "trainer-resumes": trainer}


def run(arguments: Sequence[str], environment: dict[str, str], folder: str) -> None:
    """One process of a run: ``answer.json`` in ``folder`` by the first one, and what it says as ``rank-N.log``."""
    os.environ.update(environment)
    rank = environment["RANK"]
    if "WORLD_SIZE" not in environment:  # then it is no part of a group
        del os.environ["RANK"], os.environ["LOCAL_RANK"]
    log = os.open(Path(folder) / f"rank-{rank}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    options = _parser().parse_args(arguments)
    found = WORK[options.what](options)
    if rank == "0":
        (Path(folder) / "answer.json").write_text(json.dumps(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=list(WORK))
    parser.add_argument("--config", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--sizes", type=json.loads)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--positions", type=int, nargs="*")
    parser.add_argument("--theirs")
    return parser
