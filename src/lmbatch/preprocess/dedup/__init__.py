"""De-duplication as two stages of tasks before the documents are tokenized.

::

    sign-NNNNNN     one per task of the plan: read, clean, hash ──▶ dedup/sign-….bin, keys laid out by partition
         │
    compare-NNNN    one per partition: its keys of all tasks    ──▶ dedup/compare-….bin, rows to drop laid out by task
         │
    task-NNNNNN     as ever, but the rows that are listed are dropped by reason

Each unit of work has a receipt that is published last and once, like a task's, and the next stage begins when all are
there. Blocks carry their CRC-32 in the receipt and are checked when they are read.
"""

from lmbatch.preprocess.dedup.check import check_lists, check_units
from lmbatch.preprocess.dedup.clusters import duplicate_clusters
from lmbatch.preprocess.dedup.compare import run_compare
from lmbatch.preprocess.dedup.lists import DropLists, Sieve
from lmbatch.preprocess.dedup.receipts import (
    ClusterEntry,
    ClusterReport,
    CompareReceipt,
    Origin,
    SignReceipt,
    parse_compare,
    parse_sign,
)
from lmbatch.preprocess.dedup.sign import run_sign
from lmbatch.preprocess.dedup.signed import SignedTasks
from lmbatch.preprocess.dedup.units import ComparePartition, SignTask, compare_units, sign_units

__all__ = [
    "ClusterEntry",
    "ClusterReport",
    "ComparePartition",
    "CompareReceipt",
    "DropLists",
    "Origin",
    "Sieve",
    "SignReceipt",
    "SignTask",
    "SignedTasks",
    "check_lists",
    "check_units",
    "compare_units",
    "duplicate_clusters",
    "parse_compare",
    "parse_sign",
    "run_compare",
    "run_sign",
    "sign_units",
]
