"""What lmbatch is measured against, each in a process of its own: `python peers.py NAME '{"input": …}'`.

Each is written as its users write it: datatrove's own pipeline, the loop of Megatron-LM's tools/preprocess_data.py, and
`datasets.map` with overflowing tokens. `ceiling` and `huggingface` are no peers: an engine over strings in memory.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

CONTEXT = 512  # of the recipes that cut documents into chunks
BATCH_BYTES = 1 << 20


class Job(NamedTuple):
    """``tokenizer`` is a folder with tokenizer.json; ``input`` is a JSON Lines file with ``id`` and ``content``."""

    input: str
    output: str
    tokenizer: str
    eod: str
    eod_id: int
    dtype: str


def datatrove(job: Job) -> None:
    """JsonlReader → DocumentTokenizer, one task; shuffling, which writes everything twice, is switched off."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    path, out = Path(job.input), Path(job.output)
    reader = JsonlReader(str(path.parent), text_key="content", id_key="id", glob_pattern=path.name)
    writer = DocumentTokenizer(
        str(out / "ids"),
        tokenizer_name_or_path=f"{job.tokenizer}/tokenizer.json",
        eos_token=job.eod,
        shuffle_documents=False,
    )
    LocalPipelineExecutor([reader, writer], tasks=1, workers=1, logging_dir=str(out / "logs")).run()


class _Encoder:
    """The `Encoder` of Megatron-LM's tools/preprocess_data.py: made in each worker, one document at a time."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def start(self) -> None:
        from transformers import PreTrainedTokenizerFast

        _Encoder.tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{self.job.tokenizer}/tokenizer.json")

    def encode(self, line: str) -> tuple[list[int], int]:
        text = json.loads(line)["content"]
        return [*_Encoder.tokenizer(text, add_special_tokens=False).input_ids, self.job.eod_id], len(line)


def megatron(job: Job) -> None:
    """A pool of one worker over the lines, and megatron-core's own builder in the parent."""
    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    prefix = f"{job.output}/ids"
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=np.dtype(job.dtype).type)
    encoder = _Encoder(job)
    with Path(job.input).open(encoding="utf-8") as lines, multiprocessing.Pool(1, initializer=encoder.start) as pool:
        for ids, _ in pool.imap(encoder.encode, lines, 32):
            builder.add_document(ids, [len(ids)])
        builder.finalize(f"{prefix}.idx")


def datasets(job: Job) -> None:
    """As the recipes do it: chunks of 512 by overflowing tokens, shorter ones thrown away, then saved."""
    from datasets import load_dataset
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{job.tokenizer}/tokenizer.json")
    raw = load_dataset("json", data_files=job.input, split="train", cache_dir=f"{job.output}/cache")

    def tokenize(batch: dict[str, list[Any]]) -> dict[str, list[list[int]]]:
        found = tokenizer(
            batch["content"], truncation=True, max_length=CONTEXT, return_overflowing_tokens=True, return_length=True
        )
        pairs = zip(found["length"], found["input_ids"], strict=True)
        return {"input_ids": [ids for length, ids in pairs if length == CONTEXT]}

    raw.map(tokenize, batched=True, remove_columns=raw.column_names).save_to_disk(f"{job.output}/ids")


def ceiling(job: Job) -> None:
    """The fastest exact engine over the texts, read beforehand, a mebibyte at a time, in one pass."""
    _in_memory(job, "auto")


def huggingface(job: Job) -> None:
    """The same with Hugging Face's tokenizers."""
    _in_memory(job, "huggingface")


def _in_memory(job: Job, name: str) -> None:
    from lmbatch.tokens import load_tokenizer
    from lmbatch.tokens.engines import HuggingFaceEngine, make_engine

    backend = load_tokenizer(Path(job.tokenizer), job.eod).backend
    engine = make_engine(backend, name) or HuggingFaceEngine(backend)
    batches: list[list[str]] = [[]]
    size = 0
    with Path(job.input).open(encoding="utf-8") as lines:
        for line in lines:
            batches[-1].append(json.loads(line)["content"])
            size += len(batches[-1][-1].encode())
            if size >= BATCH_BYTES:
                batches.append([])
                size = 0
    before = time.process_time()
    tokens = sum(len(engine.encode(batch).flat) for batch in batches)
    print(json.dumps({"cpu_seconds": time.process_time() - before, "tokens": tokens, "engine": engine.name}))


PEERS = {run.__name__: run for run in (datatrove, megatron, datasets, ceiling, huggingface)}


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    PEERS[sys.argv[1]](Job(**json.loads(sys.argv[2])))
