"""Hand a preprocessed corpus to other tools.

::

    manifest + shards ──rows──▶ export_parquet ──▶ OUT/train-00000-of-00012.parquet …   (datasets, pyarrow, …)
                     └─ prefixes ──▶ Megatron-LM's --data-path, GPT-NeoX's train-data-paths (they read the shards)

Shards are read through the loader's cache, so that only bytes with the right sha256 are handed on.
"""

from lmbatch.interchange.megatron import Prefix, shard_prefixes
from lmbatch.interchange.parquet import ExportedSplit, ExportOptions, export_parquet

__all__ = ["ExportOptions", "ExportedSplit", "Prefix", "export_parquet", "shard_prefixes"]
