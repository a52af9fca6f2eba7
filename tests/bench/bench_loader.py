"""How fast the loader reads, beside its peers and a plain read of the same bytes.

    python tests/bench/bench_loader.py [--mebibytes 256] [--repeat 3] [--quick] [--cache FOLDER]

Each row is a process of its own on one core: shuffled batches of 64 samples of 1,024 tokens as int64, from local files
in the page cache. Medians of rounds in which all take turns. The first run writes the corpus in the format of each peer
and makes an environment for those that are none of the project's packages, all kept in the cache folder. `--quick`
leaves those peers and the object storage out and uses a small corpus: it shows that the bench works, nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from loader_ours import DOCUMENT, VOCABULARY
from loader_peers import BATCH, Job
from measuring import fresh, run

from lmbatch.shards import encode_index

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LENGTH = 1024
SHARES = (0.0, 0.5, 0.99)
MADE = ("lmbatch", "lmbatch-best-fit", "datasets", "megatron", "litdata", "streaming")  # "make" writes something
ROWS = {
    "bytes": "plain sequential read to int64",
    "lmbatch": "lmbatch, global",
    "lmbatch-windowed": "lmbatch, windowed",
    "lmbatch-apart": "lmbatch, documents kept apart",
    "lmbatch-best-fit": "lmbatch, best fit",
    "lmbatch-masked": "lmbatch, masked",
    "datasets": "datasets",
    "litdata": "litdata",
    "streaming": "MosaicML streaming",
    "megatron": "Megatron-LM GPTDataset",
}
APART = ("litdata", "streaming")  # in an environment of their own
PLACES = ("lmbatch", "lmbatch-windowed", "datasets", "litdata", "streaming", "megatron")
# All of them, because nothing is resolved: torch, numpy and the rest are the project's own.
PINS = (
    "litdata==0.2.76", "lightning-utilities==0.15.2", "boto3==1.40.30", "botocore==1.40.30", "s3transfer==0.14.0",
    "jmespath==1.0.1", "tifffile==2025.6.11", "mosaicml-streaming==0.13.0", "python-snappy==0.7.3", "cramjam==2.11.0",
    "Brotli==1.1.0", "zstd==1.5.7.2", "xxhash==3.5.0", "catalogue==2.0.10",
)  # fmt: skip

Found = dict[str, float]


@dataclass(frozen=True)
class Bench:
    """Where the corpus lies, and what is measured."""

    cache: Path
    job: Job
    names: tuple[str, ...]
    core: int
    steps: int

    def python(self, name: str) -> str:
        return str(self.cache / "venv" / "bin" / "python") if name in APART else sys.executable

    def do(self, what: str, name: str, **changes: Any) -> str:
        """What a process of the peer has said."""
        job = json.dumps(self.job._replace(**changes)._asdict())
        return run([self.python(name), str(HERE / "loader_peers.py"), what, name, job], {self.core}).output

    def read(self, name: str, **changes: Any) -> Found:
        """Its last line: it may have said other things."""
        found: Found = json.loads(self.do("read", name, **changes).splitlines()[-1])
        return found

    def make(self) -> None:
        """The corpus, and what each peer makes of it, if it is not there."""
        for name in filter(self.names.__contains__, MADE):
            done = self.cache / f"{name}.done"
            if not done.exists():
                fresh(self.cache / name)
                self.do("make", name)
                done.touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lmbatch-bench" / "loader"
    parser.add_argument("--mebibytes", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400, help="batches that are timed")
    parser.add_argument("--quick", action="store_true", help="under a minute; figures that mean nothing")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--cache", type=Path, default=default)
    options = parser.parse_args()
    names = tuple(name for name in ROWS if not (options.quick and name in APART))
    if options.quick:
        with TemporaryDirectory() as folder:
            bench = prepared(Path(folder), 8, names, options.core, steps=20)
            print_rates(bench, repeat=1)
            print_places(replace(bench, names=("lmbatch",)), repeat=1)
        return
    environment(options.cache)
    bench = prepared(options.cache / str(options.mebibytes), options.mebibytes, names, options.core, options.steps)
    print_rates(bench, options.repeat)
    print_places(bench, options.repeat)
    print_from_s3(bench, options.mebibytes)


def prepared(folder: Path, mebibytes: int, names: tuple[str, ...], core: int, steps: int) -> Bench:
    """A bench whose corpus is there: documents of 1,000 random tokens, EOD included."""
    documents = mebibytes * 2**19 // DOCUMENT
    path = folder / "tokens.bin"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        tokens = np.random.default_rng(0).integers(2, VOCABULARY, (documents, DOCUMENT), dtype=np.uint16)
        tokens[:, -1] = 0
        (folder / "tokens.idx").write_bytes(encode_index([DOCUMENT] * documents, "uint16"))
        tokens.tofile(path)
    job = Job(str(folder), documents * DOCUMENT // LENGTH, LENGTH)
    steps = min(steps, job.samples // BATCH // 2)
    bench = Bench(folder, job, names, core, steps)
    link = folder / "venv"
    if not link.exists() and (folder.parent / "venv").exists():
        link.symlink_to(folder.parent / "venv")
    bench.make()
    return bench


def environment(cache: Path) -> None:
    """A Python that sees the project's packages and has the peers which are none of them."""
    venv = cache / "venv"
    if (venv / "made").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
    python = str(venv / "bin" / "python")
    ours = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    purelib, own = (
        subprocess.run([name, "-c", ours], check=True, capture_output=True, text=True).stdout.strip()
        for name in (sys.executable, python)
    )
    (Path(own) / "project.pth").write_text(purelib + "\n", encoding="utf-8")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *PINS], check=True)
    (venv / "made").touch()


def print_rates(bench: Bench, repeat: int) -> None:
    """Batches as fast as they come."""
    found = rounds(bench.names, repeat, lambda name: bench.read(name, steps=bench.steps))
    limit = middle(found["bytes"], cpu_rate)
    ours = middle(found["lmbatch"], cpu_rate)
    print(f"\n{bench.steps} batches of {BATCH} × {LENGTH} tokens; the corpus has {bench.job.samples:,} samples\n")
    print("| reading | M tokens per CPU-second | M tokens/s | % of plain read | lmbatch is × | memory, MB |")
    print("|---|---|---|---|---|---|")
    for name, runs in found.items():
        rate, wall = middle(runs, cpu_rate), middle(runs, lambda one: one["tokens"] / one["seconds"])
        memory = max(one["memory"] for one in runs) / 1e6
        times = "" if name.startswith(("lmbatch", "bytes")) else f"{ours / rate:.1f}"
        share = 100 * rate / limit
        print(f"| {ROWS[name]} | {rate / 1e6:,.0f} | {wall / 1e6:,.0f} | {share:.1f} | {times} | {memory:.0f} |")


def print_places(bench: Bench, repeat: int) -> None:
    """From nothing but imports to a batch, where a run has read a share of the epoch."""
    names = [(name, share) for name in PLACES if name in bench.names for share in SHARES]
    found = rounds(names, repeat, lambda place: bench.read(place[0], share=place[1]))
    print("\n| first batch, ms | at the start | after 50 % | after 99 % |\n|---|---|---|---|")
    for name in dict.fromkeys(name for name, _ in names):
        cells = [f"{1e3 * middle(found[name, share], lambda one: one['first']):.0f}" for share in SHARES]
        print(f"| {ROWS[name]} | {' | '.join(cells)} |")


def print_from_s3(bench: Bench, mebibytes: int) -> None:
    """An epoch of the corpus from an S3 server on this machine, with a cache of a third of it."""
    sys.path.insert(0, str(ROOT / "cluster"))
    from s3_server import S3Server

    cache, shards = mebibytes * 2**20 // 3, Path(bench.job.data) / "lmbatch"
    with TemporaryDirectory() as folder:
        server = S3Server(Path(folder))
        os.environ.update(server.start().environment)
        try:
            uri = f"{server.settings.uri}/bench"
            upload(shards, uri)
            disk = Disk(fresh(Path(bench.job.data) / "cache"))
            steps = bench.job.samples // BATCH - 2
            one = bench.read("lmbatch-s3", store=uri, cache=cache, steps=steps)
        finally:
            server.stop(wipe=True)
    print(
        f"\nFrom S3, windowed, cache of {cache / 1e6:.0f} MB for {mebibytes * 2**20 / 1e6:.0f} MB: "
        f"{one['tokens'] / one['seconds'] / 1e6:.0f} M tokens/s, {cpu_rate(one) / 1e6:.0f} per CPU-second; first batch "
        f"{one['first']:.2f} s; at most {disk.most / 1e6:.0f} MB on disk; {one['memory'] / 1e6:.0f} MB of memory"
    )


def upload(folder: Path, uri: str) -> None:
    """A local store to another one, its manifest last."""
    from lmbatch.store import MANIFEST_KEY, open_store

    store = open_store(uri)
    for path in sorted((folder / "shards").rglob("*.*")):
        store.put_file(path.relative_to(folder).as_posix(), path)
    store.put_file(MANIFEST_KEY, folder / MANIFEST_KEY)


class Disk:
    """The most bytes that a folder has held since then, looked at some 50 times a second."""

    def __init__(self, folder: Path) -> None:
        self.most, self._folder = 0, folder
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, sum(map(_taken, self._folder.rglob("*"))))
            time.sleep(0.02)


def _taken(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def rounds(names: Any, repeat: int, once: Any) -> dict[Any, list[Found]]:
    """Each of ``names`` so many times, in turn, so that a slow moment of the machine meets all of them."""
    found: dict[Any, list[Found]] = {name: [] for name in names}
    for _ in range(repeat):
        for name in names:
            found[name].append(once(name))
            print(".", end="", file=sys.stderr, flush=True)
    return found


def middle(runs: list[Found], value: Any) -> float:
    return statistics.median(map(value, runs))


def cpu_rate(one: Found) -> float:
    return one["tokens"] / one["cpu"]


if __name__ == "__main__":
    main()
