"""Token shards in Megatron-LM's .bin/.idx format: write, read, verify.

::

    token ids of documents ──ShardWriter──▶ STEM.bin           raw little-endian tokens, document after document
      (preprocess)                          STEM.idx           lengths and byte offsets (index)
                                            STEM.docs.parquet  where each document came from (docs)
                                                │
                        ┌───────────────────────┼───────────────────────┐
                   Shard.open               map_tokens             verify_shard ──▶ what is wrong, in sentences
                (tools, tests)               (loader)             (preprocess, CLI)

One document is one sequence and ends with EOD, unless the corpus was cut into examples (config.ChunkingConfig): then
it has one sequence or more, or, where documents are packed (PackedBatch), a sequence holds several of them. Other
trainers read the first two files as they are. This package imports ``errors`` and ``store``.
"""

from lmbatch.shards.batch import DocumentBatch, PackedBatch
from lmbatch.shards.docs import DocumentRow, all_rows, read_rows, read_table
from lmbatch.shards.dtypes import DTYPES, DtypeName, TokenArray, dtype_for
from lmbatch.shards.index import ShardIndex, encode_index, map_index, parse_index
from lmbatch.shards.reader import Shard, map_tokens
from lmbatch.shards.verify import verify_shard
from lmbatch.shards.writer import ShardWriter, WrittenShard

__all__ = [
    "DTYPES",
    "DocumentBatch",
    "DocumentRow",
    "DtypeName",
    "PackedBatch",
    "Shard",
    "ShardIndex",
    "ShardWriter",
    "TokenArray",
    "WrittenShard",
    "all_rows",
    "dtype_for",
    "encode_index",
    "map_index",
    "map_tokens",
    "parse_index",
    "read_rows",
    "read_table",
    "verify_shard",
]
