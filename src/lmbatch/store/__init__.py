"""Where everything that outlives a process is kept: objects under a root, named by keys.

::

    file://folder · s3://bucket/prefix · memory://, https://, … (read only)
              │
         open_store(uri) ──▶ Store ── read, open, info, list     ranges, streams, sorted listings
              │                 ├──── put, put_file, get_file    whole or not at all
              │                 └──── publish                    once: the commit of a receipt, a manifest
    check_publish_once(store)        refuses a store that ignores conditional writes

    manifest.py: the documents that stages meet through ── Receipt · Manifest · Ledger · ShardEntry · FileEntry

Every later stage imports this package; it imports only ``errors`` and ``config``.
"""

from lmbatch.store.base import ObjectInfo, Store
from lmbatch.store.keys import check_key
from lmbatch.store.local import LocalStore
from lmbatch.store.location import local_folder, open_store
from lmbatch.store.manifest import (
    FORMAT_VERSION,
    MANIFEST_KEY,
    PLAN_KEY,
    RECEIPTS_PREFIX,
    SPLITS,
    TOKENIZER_PREFIX,
    FileEntry,
    Ledger,
    Manifest,
    PieceReceipt,
    Receipt,
    ShardEntry,
    Split,
    TokenizerEntry,
    TokenLedger,
    parse_manifest,
    parse_receipt,
    parse_stored,
    to_json,
)
from lmbatch.store.probe import PROBE_TRAFFIC, check_publish_once
from lmbatch.store.retry import Backoff, retry
from lmbatch.store.special_tokens import SpecialTokens, parse_special_tokens
from lmbatch.store.traffic import Meter, Traffic

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST_KEY",
    "PLAN_KEY",
    "PROBE_TRAFFIC",
    "RECEIPTS_PREFIX",
    "SPLITS",
    "TOKENIZER_PREFIX",
    "Backoff",
    "FileEntry",
    "Ledger",
    "LocalStore",
    "Manifest",
    "Meter",
    "ObjectInfo",
    "PieceReceipt",
    "Receipt",
    "ShardEntry",
    "SpecialTokens",
    "Split",
    "Store",
    "TokenLedger",
    "TokenizerEntry",
    "Traffic",
    "check_key",
    "check_publish_once",
    "local_folder",
    "open_store",
    "parse_manifest",
    "parse_receipt",
    "parse_special_tokens",
    "parse_stored",
    "retry",
    "to_json",
]
