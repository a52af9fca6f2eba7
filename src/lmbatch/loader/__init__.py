"""Which tokens come next: sample order, local shards, batches read ahead.

::

    manifest.json ──▶ SampleOrder          sample number ──▶ spans of shards (pure: digest, seed, number)
                          │
    shards in a store ──▶ ShardCache ──▶ TokenReader     checked once, bounded disk, mapped memory
                          │
                          ▼
                      BatchLoader ──▶ Step(Batch, …) for this rank     read ahead by a thread
                      EvaluationBatches ──▶ Batch                      the validation split in a fixed order
                          ├── Apart ──▶ ApartBatch                  documents of a sample do not see each other
                          └── Masking ──▶ MaskedBatch                  tokens hidden (pure: seed, sample number)

    spans ──▶ documents_of, show_samples ──▶ file, byte offset and id of every document in them
    Batch ──▶ batches_digest ──▶ what identifies a step's tokens in metrics.jsonl

``train`` calls it. It imports ``config``, ``store`` and ``shards``, and no torch. A run's place in the data is three
values, LoaderState: the manifest's digest, the seed, and how many samples are done.
"""

from lmbatch.loader.apart import Apart, ApartBatch
from lmbatch.loader.batches import Batch, BatchLoader, Step, check_batch
from lmbatch.loader.cache import ShardCache
from lmbatch.loader.data import TokenData, cache_folder, open_train_data, read_manifest
from lmbatch.loader.digest import batches_digest, digest_text
from lmbatch.loader.evaluation import EvaluationBatches, Sequences
from lmbatch.loader.masking import MaskedBatch, Masking, Purpose
from lmbatch.loader.order import SampleOrder, Window, samples_of
from lmbatch.loader.origin import DocumentOrigin, documents_of, task_of
from lmbatch.loader.reader import TokenReader, TokenSource, read_sample, read_samples
from lmbatch.loader.shown import DocumentPart, ShownSample, show_samples
from lmbatch.loader.state import LoaderState
from lmbatch.loader.stream import Span

__all__ = [
    "Apart",
    "ApartBatch",
    "Batch",
    "BatchLoader",
    "DocumentOrigin",
    "DocumentPart",
    "EvaluationBatches",
    "LoaderState",
    "MaskedBatch",
    "Masking",
    "Purpose",
    "SampleOrder",
    "Sequences",
    "ShardCache",
    "ShownSample",
    "Span",
    "Step",
    "TokenData",
    "TokenReader",
    "TokenSource",
    "Window",
    "batches_digest",
    "cache_folder",
    "check_batch",
    "digest_text",
    "documents_of",
    "open_train_data",
    "read_manifest",
    "read_sample",
    "read_samples",
    "samples_of",
    "show_samples",
    "task_of",
]
