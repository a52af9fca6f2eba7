"""What the training loop costs beside its peers, on the same model and the same tokens in one run.

    python tests/bench/bench_train.py [--rounds 2] [--models demo 13M] [--instructions] [--quick]

Contestants take turns, each in a process of its own pinned to one core with one thread. Medians over all steps but the
first ones, then over the rounds. Seconds are those of the CPU, which neighbours disturb least; wall clock stands beside
them. Then: how much of a step is useful, by the way documents are packed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "src"), str(HERE.parent), str(HERE)]

from lmbatch.config import CacheConfig, DataConfig  # noqa: E402
from lmbatch.loader import BatchLoader, open_train_data  # noqa: E402
from lmbatch.shards import ShardWriter  # noqa: E402
from lmbatch.store import MANIFEST_KEY, Ledger, LocalStore, Manifest, TokenizerEntry, to_json  # noqa: E402

VOCABULARY = 8000
WARM = 3  # steps that are left out: the first ones allocate


@dataclass(frozen=True)
class Model:
    """Sizes of a GPT-2 and of a step; ``steps`` in one process."""

    config: dict[str, Any]
    length: int
    size: int
    micro: int
    steps: int


STILL = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
MODELS = {
    "demo": Model({"n_layer": 3, "n_head": 4, "n_embd": 160} | STILL, 128, 8, 8, 40),
    "13M": Model({"n_layer": 6, "n_head": 6, "n_embd": 384} | STILL, 256, 4, 4, 8),
}
TINY = Model({"n_layer": 1, "n_head": 2, "n_embd": 16} | STILL, 16, 2, 2, 6)
# Name in the table: contestant in train_peers.py and the part of the config that differs.
ZERO2 = {"engine": {"name": "deepspeed", "zero_stage": 2}}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "bare PyTorch loop": ("bare", {}),
    "lmbatch": ("lmbatch", {}),
    "lmbatch, fused_optimizer, loss_chunk_tokens": (
        "lmbatch", {"compute": {"fused_optimizer": True, "loss_chunk_tokens": 256}},
    ),
    "Trainer": ("trainer", {}),
    "Trainer + DeepSpeed (ZeRO 2)": ("trainer_zero2", {}),
    "lmbatch + ZeRO 2": ("lmbatch", ZERO2),
}  # fmt: skip
PACKING = ("packed", "best_fit", "lines", "truncate", "drop_short")


@dataclass(frozen=True)
class Taken:
    """Medians of a contestant: seconds of CPU and wall clock of a step, seconds to the first one, the losses."""

    cpu: float
    wall: float
    start: float
    losses: list[float]


def write_tokens(folder: Path, tokens: int) -> str:
    """A finished corpus of random documents; the address of its store."""
    store, rng = LocalStore(folder / "store"), np.random.default_rng(0)
    writer = ShardWriter(folder, "shard", "uint16")
    for position in range(tokens // 500):
        ids = rng.integers(1, VOCABULARY, 500, dtype=np.uint16)
        ids[-1] = 0
        writer.append(ids, piece=0, position=position, id=None, text_bytes=500)
    written = writer.close()
    entry = written.entry("train", f"shards/train/task-000000-00-{written.bin_sha256[:12]}")
    for file, path in ((entry.bin, written.bin), (entry.idx, written.idx), (entry.docs, written.docs)):
        store.put_file(file.key, path)
    tokenizer = TokenizerEntry(fingerprint="t", size=VOCABULARY, largest_id=VOCABULARY - 1, eod_token="<eod>", eod_id=0)
    manifest = Manifest(corpus="bench", config="f", dtype="uint16", tokenizer=tokenizer, shards=(entry,),
                        ledger=Ledger()).sealed()  # fmt: skip
    store.put(MANIFEST_KEY, to_json(manifest))
    return str(store.uri)


def settings_of(model: Model, store: str, folder: Path) -> dict[str, Any]:
    """The run, as plain values."""
    return {
        "run": {"name": "bench", "dir": str(folder)},
        "data": {"store": store, "sequence_length": model.length, "cache": {"dir": str(folder / "cache")}},
        "model": {"type": "gpt2", "config": model.config},
        "optimizer": {"lr": 1e-3, "clip_norm": 1.0},
        "schedule": {"name": "constant"},
        "batch": {"size": model.size, "micro": model.micro},
        "steps": model.steps, "precision": "fp32", "seed": 1, "evaluate": {"batches": 0},
        "save": {"every": 10**6}, "tensorboard": False, "log_every": 10**6,
    }  # fmt: skip


def dump_batches(settings: dict[str, Any], path: Path) -> None:
    """The tokens of every step, in the order in which lmbatch reads them."""
    data = settings["data"]
    config = DataConfig(store=data["store"], sequence_length=data["sequence_length"],
                        cache=CacheConfig(**data["cache"]))  # fmt: skip
    size = settings["batch"]["size"]
    with (
        open_train_data(config, seed=settings["seed"]) as found,
        BatchLoader(found.order, found.reader, batch_size=size, micro=size) as loader,
    ):
        np.save(path, np.stack([next(loader).batches[0].tokens for _ in range(settings["steps"])]))


def take(
    way: str, changes: dict[str, Any], settings: dict[str, Any], batches: Path, core: int, before: Sequence[str] = ()
) -> dict[str, Any]:
    """One contestant once, started by the words ``before``. Stops the bench with its words if it fails."""
    with tempfile.TemporaryDirectory() as name:
        own = settings | changes | {"run": {"name": "bench", "dir": name}}
        job = Path(name) / "job.json"
        values = {"settings": own, "batches": str(batches), "vocabulary": VOCABULARY, "started": time.time()}
        job.write_text(json.dumps(values), encoding="utf-8")
        paths = os.pathsep.join([str(HERE.parents[1] / "src"), str(HERE.parent)])
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths,
                                    "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
        done = subprocess.run(
            [*before, sys.executable, str(HERE / "train_peers.py"), way, str(job)], env=environment,
            capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {core}), check=False,
        )  # fmt: skip
    if done.returncode:
        sys.exit(f"{way}\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def middle(rounds: list[dict[str, Any]]) -> Taken:
    """Of a contestant's rounds."""

    def of(key: str) -> float:
        return statistics.median(statistics.median(one[key][WARM:]) for one in rounds)

    return Taken(of("cpu"), of("wall"), statistics.median(one["start"] for one in rounds), rounds[0]["losses"])


def race(model: Model, rounds: int, folder: Path, ways: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Taken]:
    """All contestants, in turn."""
    core = max(os.sched_getaffinity(0))
    tokens = (model.steps + 2) * model.size * (model.length + 1)
    settings = settings_of(model, write_tokens(folder, max(tokens, 20_000)), folder)
    dump_batches(settings, folder / "batches.npy")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (way, changes) in ways.items():
            found[name].append(take(way, changes, settings, folder / "batches.npy", core))
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {name: middle(one) for name, one in found.items()}


def count_instructions(model: Model, folder: Path, ways: dict[str, tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """A table of instructions of a step, which do not depend on what else the machine does: those of a run less those
    of one with half as many steps."""
    core, halves = max(os.sched_getaffinity(0)), (model.steps, model.steps // 2)
    tokens = (model.steps + 2) * model.size * (model.length + 1)
    settings = settings_of(model, write_tokens(folder, max(tokens, 20_000)), folder)
    yield "| way | 10⁶ instructions a step | × bare |"
    yield "|---|---|---|"
    base = 0.0
    for name, (way, changes) in ways.items():
        counted = []
        for steps in halves:
            batches = folder / f"batches-{steps}.npy"
            dump_batches(settings | {"steps": steps}, batches)
            told = folder / "perf"
            words = ("perf", "stat", "--field-separator=,", "--event=instructions:u", f"--output={told}")
            take(way, changes, settings | {"steps": steps}, batches, core, words)
            counted.append(next(int(line.split(",")[0]) for line in told.read_text().splitlines() if ",instr" in line))
        each = (counted[0] - counted[1]) / (halves[0] - halves[1])
        base = base or each
        yield f"| {name} | {each / 1e6:,.0f} | {each / base:.4f} |"


def race_table(name: str, model: Model, taken: dict[str, Taken]) -> Iterator[str]:
    """The lines of the report; per-step overhead and ratio are against the bare loop's CPU-seconds."""
    base, tokens = next(iter(taken.values())), model.size * model.length
    heads = ("tokens per CPU-second", "× bare", "CPU-ms a step", "overhead, ms", "wall ms a step", "start, s", "loss")
    yield f"| {name} | {' | '.join(heads)} |"
    yield "|---|---|---|---|---|---|---|---|"
    for way, one in taken.items():
        yield (
            f"| {way} | {tokens / one.cpu:,.0f} | {base.cpu / one.cpu:.3f} | {one.cpu * 1e3:.1f} "
            f"| {(one.cpu - base.cpu) * 1e3:+.1f} | {one.wall * 1e3:.1f} | {one.start:.1f} | {one.losses[-1]:.4f} |"
        )


def packing_table(length: int, documents: int, folder: Path) -> Iterator[str]:
    """Useful tokens of a step by the way that documents become examples; the same documents for all.

    Documents are lines of English words, log-normal in length (median 60 words), four lines in the median document.
    """
    from lmbatch.config import TokenizerConfig
    from lmbatch.tokens.train import train_tokenizer
    from support.drive import preprocess_here
    from support.masked_corpus import SPECIAL, preprocess_config

    write_documents(folder, documents)
    raw: dict[str, Any] = {"corpus": {"name": "bench", "format": "json_lines", "raw": str(folder / "raw"),
                                      "include": ["*.jsonl"]},
                           "split": {"validation_fraction": 0.0}}  # fmt: skip
    first = preprocess_config(folder, **raw, chunking={"mode": "packed"})
    tokenizer = TokenizerConfig(vocab_size=2000, special_tokens=SPECIAL, eod="</s>", corpus="-", max_length=512,
                                out=str(folder / "tokenizer"))  # fmt: skip
    train_tokenizer(tokenizer, first)
    yield "| packing | useful share of a step | tokens of the corpus that are never read | examples |"
    yield "|---|---|---|---|"
    for mode in PACKING:
        chunking = {"mode": mode} if mode == "packed" else {"mode": mode, "length": length}
        config = preprocess_config(folder, **raw, chunking=chunking, store=str(folder / mode))
        lost = preprocess_here(config).ledger.tokens
        useful, samples = useful_share(str(folder / mode), length if mode == "packed" else length - 1, folder)
        yield f"| {mode} | {useful:.1%} | {0.0 if lost is None else lost.share_lost:.1%} | {samples:,} |"


def write_documents(folder: Path, documents: int) -> None:
    """One JSON Lines file."""
    rng, words = np.random.default_rng(7), [f"w{number}" for number in range(1500)]
    lines = []
    for number in range(documents):
        sizes = np.ceil(rng.lognormal(2.7, 0.9, 1 + rng.poisson(3))).astype(int)
        text = "\n".join(" ".join(rng.choice(words, size)) for size in sizes)
        lines.append(json.dumps({"id": number, "text": text}))
    (folder / "raw").mkdir(parents=True)
    (folder / "raw" / "documents.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def useful_share(store: str, length: int, folder: Path) -> tuple[float, int]:
    """Predicted tokens as a share of the positions that are computed, over an epoch; the samples of one."""
    config = DataConfig(store=store, sequence_length=length, cache=CacheConfig(dir=str(folder / "cache")))
    with open_train_data(config, seed=1) as data:
        samples = data.order.samples_per_epoch
        with BatchLoader(data.order, data.reader, batch_size=1, micro=1) as loader:
            useful = sum(next(loader).batches[0].targets for _ in range(samples))
    return useful / (samples * length), samples


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--instructions", action="store_true", help="count them with perf instead of taking the time")
    parser.add_argument("--quick", action="store_true", help="a model of nothing, one round, to see that it runs")
    options = parser.parse_args()
    models = {"tiny": TINY} if options.quick else {name: MODELS[name] for name in options.models}
    if options.instructions:
        for name, model in models.items():
            with tempfile.TemporaryDirectory() as folder:
                print(name, *count_instructions(model, Path(folder), WAYS), sep="\n")
        return
    for name, model in models.items():
        with tempfile.TemporaryDirectory() as folder:
            taken = race(model, 1 if options.quick else options.rounds, Path(folder), WAYS)
        for line in race_table(name, model, taken):
            print(line)
        print()
    with tempfile.TemporaryDirectory() as folder:
        for line in packing_table(256, 200 if options.quick else 2000, Path(folder)):
            print(line)


if __name__ == "__main__":
    main()
