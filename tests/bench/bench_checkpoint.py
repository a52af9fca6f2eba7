"""What checkpoints cost: the stall of a save and the time to the first step after a resume, beside the peers.

    python tests/bench/bench_checkpoint.py [--only stall resume store] [--quick]

Prints tables with seconds and ratios of one run on one machine; only the ratios mean something.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoint_runs
import numpy as np

from lmbatch.shards import ShardWriter
from lmbatch.store import MANIFEST_KEY, Ledger, LocalStore, Manifest, ShardEntry, to_json
from lmbatch.store.manifest import TokenizerEntry
from lmbatch.tokens import load_tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.scripts import load_script
from support.tiny_corpus import EOD, VOCABULARY, tokenizer_files, write_tokenizer
from support.tiny_run import write_config

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = 1000
SHARD_TOKENS = 8 * 2**20
BATCH = 8  # of the runs that are resumed


@dataclass(frozen=True)
class Sizes:
    """Of the model whose saves are measured, and of the data in which a resume finds its place."""

    layers: int
    width: int
    length: int
    samples: int
    positions: tuple[int, ...]
    saves: int
    apart: int  # steps between two asynchronous saves

    @property
    def gpt2(self) -> dict[str, int]:
        """For transformers' config class."""
        heads = max(1, self.width // 64)
        return {"vocab_size": len(VOCABULARY), "n_positions": self.length, "n_layer": self.layers,
                "n_embd": self.width, "n_head": heads}  # fmt: skip


FULL = Sizes(12, 768, 128, 480_000, (100, 1_000, 10_000, 59_000), saves=3, apart=6)
QUICK = Sizes(2, 32, 32, 4_000, (10, 100, 400), saves=2, apart=2)
TINY = {"vocab_size": len(VOCABULARY), "n_layer": 2, "n_embd": 32, "n_head": 2}


class Bench:
    """One run of everything, in a folder of its own."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder, self.sizes = folder, sizes
        self.store = make_corpus(folder, sizes)
        self.rows = str(folder / "rows")
        make_rows(sizes).save_to_disk(self.rows)

    def config(self, name: str, gpt2: dict[str, int], **changes: Any) -> Path:
        """Of a run of ours. A model as it is for the peers, no evaluation, no samples."""
        model = {key: value for key, value in gpt2.items() if key not in ("vocab_size", "n_positions")}
        settings = {
            "run": {"name": name, "dir": str(self.folder / "runs")},
            "data": {"store": self.store, "sequence_length": self.sizes.length},
            "model": {"type": "gpt2", "config": model}, "optimizer": {"lr": 1e-4}, "schedule": {"name": "constant"},
            "evaluate": {"batches": 0}, "tensorboard": False, **changes,
        }  # fmt: skip
        return write_config(self.folder / f"{name}.yaml", settings)

    def stalls(self, name: str, engine: dict[str, Any], *, world: int, asynchronous: bool) -> dict[str, list[float]]:
        """Of a run of ours; of a synchronous one under DeepSpeed, DeepSpeed's own too."""
        every = self.sizes.apart if asynchronous else 1
        save = {"every": every, "asynchronous": asynchronous}
        config = self.config(
            name, self.sizes.gpt2, save=save, engine=engine, batch={"size": world, "micro": 1},
            steps=every * self.sizes.saves + 1,
        )  # fmt: skip
        theirs = ["--theirs", str(self.folder / "theirs")] if engine["name"] == "deepspeed" and not asynchronous else []
        found: dict[str, list[float]] = child("stalls", "--config", str(config), *theirs, world=world)
        shutil.rmtree(self.folder / "runs" / name)
        return found


def make_corpus(folder: Path, sizes: Sizes) -> str:
    """A finished corpus of random tokens, with the tokenizer of the tiny one."""
    store = LocalStore(folder / "store")
    tokenizer = load_tokenizer(write_tokenizer(folder / "store" / "tokenizer"))
    tokens = sizes.samples * sizes.length + 1
    shards = tuple(
        _shard(store, folder, number, min(SHARD_TOKENS, tokens - number * SHARD_TOKENS))
        for number in range(-(-tokens // SHARD_TOKENS))
    )
    entry = TokenizerEntry(
        fingerprint=tokenizer.fingerprint, size=tokenizer.size, largest_id=tokenizer.largest_id, eod_token=EOD,
        eod_id=0, files=tokenizer_files(folder / "store"),
    )  # fmt: skip
    manifest = Manifest(
        corpus="bench", config="f", dtype="uint16", tokenizer=entry, shards=shards, ledger=Ledger()
    ).sealed()
    store.put(MANIFEST_KEY, to_json(manifest))
    return store.uri


def _shard(store: LocalStore, folder: Path, number: int, tokens: int) -> ShardEntry:
    rng = np.random.default_rng(number)
    writer = ShardWriter(folder, "shard", "uint16")
    for position in range(-(-tokens // DOCUMENT)):
        ids = rng.integers(1, len(VOCABULARY), DOCUMENT, dtype=np.uint16)
        ids[-1] = 0
        writer.append(ids, piece=0, position=position, id=None, text_bytes=DOCUMENT)
    written = writer.close()
    entry = written.entry("train", f"shards/train/task-{number:06d}-00-{written.bin_sha256[:12]}")
    for file, path in ((entry.bin, written.bin), (entry.idx, written.idx), (entry.docs, written.docs)):
        store.put_file(file.key, path)
        path.unlink()
    return entry


def make_rows(sizes: Sizes) -> Any:
    """As many samples for the peers."""
    from datasets import Dataset

    ids = np.random.default_rng(0).integers(1, len(VOCABULARY), (sizes.samples, sizes.length), dtype=np.int32)
    return Dataset.from_dict({"input_ids": ids})


def child(*arguments: str, world: int = 1, environment: dict[str, str] | None = None) -> Any:
    """What a run answers; on several processes the first one's. They are forked from one that has all imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["checkpoint_peers", "lmbatch.train.worker", "lmbatch.train.zero_engine"])
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        ranks = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if world > 1 else {}
        processes = [
            context.Process(
                target=checkpoint_runs.run,
                args=(arguments, (environment or {}) | ranks | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, folder),
            )
            for rank in range(world)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            logs = "\n".join(path.read_text()[-3000:] for path in sorted(Path(folder).glob("*.log")))
            sys.exit(f"{' '.join(arguments)}\n{logs}")
        print(".", end="", file=sys.stderr, flush=True)
        return json.loads((Path(folder) / "answer.json").read_text())


def stall_table(bench: Bench) -> list[str]:
    """Stall per save, against the synchronous one on as many processes."""
    zero = {"name": "deepspeed", "zero_stage": 2}
    lines = ["| stall per save | processes | seconds | × synchronous |", "|---|---|---|---|"]
    for engine, world, title in (({"name": "plain"}, 1, "plain"), (zero, 1, "ZeRO 2"), (zero, 2, "ZeRO 2")):
        found = {
            name: bench.stalls(name, engine, world=world, asynchronous=name == "asynchronous")
            for name in ("synchronous", "asynchronous")
        }
        rows = {f"lmbatch, {title}, {kind}": values["ours"] for kind, values in found.items()}
        if engine["name"] == "deepspeed":
            rows["DeepSpeed `save_checkpoint`, stage 2"] = found["synchronous"]["theirs"]
        else:
            rows["transformers `Trainer`"] = trainer_stalls(bench)
        base = statistics.median(found["synchronous"]["ours"])
        lines += [_row(name, world, statistics.median(values), base) for name, values in rows.items()]
    return lines


def trainer_stalls(bench: Bench) -> list[float]:
    steps = str(bench.sizes.saves + 1)
    folder, sizes = str(bench.folder / "trainer"), json.dumps(bench.sizes.gpt2)
    found: list[float] = child(
        "trainer-stalls", "--folder", folder, "--data", bench.rows, "--sizes", sizes, "--steps", steps
    )
    shutil.rmtree(folder)
    return found


def _row(name: str, world: int, seconds: float, base: float) -> str:
    return f"| {name} | {world} | {seconds:.3f} | {seconds / base:.3f} |"


def resume_table(bench: Bench) -> list[str]:
    """Time to the first step after a resume, by the position in the data."""
    sizes = bench.sizes
    steps = sizes.samples // BATCH
    config = bench.config("resumed", TINY, save={"every": steps}, batch={"size": BATCH, "micro": BATCH}, steps=steps)
    positions = [str(step) for step in sizes.positions]
    rows = {"lmbatch": child("resumes", "--config", str(config), "--positions", *positions)}
    gpt2 = json.dumps(TINY | {"n_positions": sizes.length})
    rows |= child(
        "trainer-resumes", "--folder", str(bench.folder / "trainer"), "--data", bench.rows, "--sizes", gpt2,
        "--steps", str(steps), "--positions", *positions,
    )  # fmt: skip
    title = " | ".join(f"step {step:,} ({step * BATCH:,} samples)" for step in sizes.positions)
    lines = [f"| seconds to the first step | {title} | last / first |", "|---" * (len(positions) + 2) + "|"]
    for name, values in rows.items():
        lines.append(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} | {values[-1] / values[0]:.1f} |")
    return lines


def store_table(bench: Bench) -> list[str]:
    """A resume from a real S3 server against one from the disk, and what sha256 takes of a synchronous save."""
    server = load_script(ROOT / "cluster" / "s3_server.py").S3Server(bench.folder / "s3")
    server.start()
    try:
        save = {"every": 1, "store": f"{server.settings.uri}/bench"}
        config = bench.config("stored", bench.sizes.gpt2, save=save, batch={"size": 1, "micro": 1}, steps=1)
        found = child("stored", "--config", str(config), environment=server.settings.environment)
    finally:
        server.stop()
    size, local = found["bytes"] / 2**20, found["local"]
    return [
        f"| to have {size:,.0f} MiB at hand, verified | seconds | × local |", "|---|---|---|",
        f"| from the disk | {local:.2f} | 1.00 |",
        f"| from the store | {found['store']:.2f} | {found['store'] / local:.2f} |",
        f"| its save: written, hashed, fsync | {found['writing']:.2f} | {found['writing'] / local:.2f} |",
        f"| sha256 of it alone | {found['hashing']:.2f} | {found['hashing'] / local:.2f} |",
    ]  # fmt: skip


TABLES = {"stall": stall_table, "resume": resume_table, "store": store_table}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model and little data: does it run at all?")
    parser.add_argument("--only", nargs="+", choices=list(TABLES), default=list(TABLES))
    options = parser.parse_args(arguments)
    os.environ |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), QUICK if options.quick else FULL)
        for name in options.only:
            lines = TABLES[name](bench)
            print("", *lines, sep="\n", flush=True)
    print(f"\n{time.monotonic() - begun:.0f} s in all")


if __name__ == "__main__":
    main()
