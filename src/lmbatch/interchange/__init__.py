"""Hand a preprocessed corpus to other tools.

::

    manifest + shards ──rows──▶ export_parquet ──▶ OUT/train-00000-of-00012.parquet …   (datasets, pyarrow, …)
                     ├─ what_is_kept ──▶ tokens that a trainer keeps which cuts documents in its own way
                     └─ prefixes ──▶ Megatron-LM's --data-path, GPT-NeoX's train-data-paths (they read the shards)

Shards are read through the loader's cache, so that only bytes with the right sha256 are handed on.
"""

from lmbatch.interchange.kept import Kept, kept_tokens, what_is_kept
from lmbatch.interchange.megatron import Prefix, shard_prefixes
from lmbatch.interchange.parquet import ExportedSplit, ExportOptions, export_parquet

__all__ = [
    "ExportOptions",
    "ExportedSplit",
    "Kept",
    "Prefix",
    "export_parquet",
    "kept_tokens",
    "shard_prefixes",
    "what_is_kept",
]
