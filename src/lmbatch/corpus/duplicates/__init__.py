"""Which documents of a corpus say what an earlier one says. Pure: texts and arrays in, arrays out.

::

    text ─normal_form─▶ code points ─content_hash─▶ 128 bits ──────────────┐
                             │                                             ├─ records of one partition ─▶ exact_drops
                             └─shingles─▶ 64-bit hashes ─Signer─▶ bands ───┘                              near_drops

``preprocess`` signs every document in one stage of tasks, brings equal keys together in another (a partition of the
keys each), and drops the rows that are named when the documents are tokenized.

A document's row is its task and its number among the documents of that task that were read and survived cleaning.
Rows are in the order of the plan, which is the order of the files, so the first of equal documents is the same
whatever runs when, and however the input is cut into tasks.

**Near-duplicates.** A document is dropped if an earlier one shares a band with it. No connected components are
built: of A, B, C in this order where only A ~ B and B ~ C, both B and C go, as with union-find; where only A ~ C and
B ~ C, A and B stay (union-find would drop B, though nothing before it is like it). So every document without an
earlier one like it is kept, and one that is dropped has a near-duplicate before it, which may itself be dropped in
favour of an earlier one.
"""

from lmbatch.corpus.duplicates.deciding import (
    Cluster,
    Clusters,
    Decision,
    drop_records,
    exact_drops,
    near_drops,
    one_per_row,
)
from lmbatch.corpus.duplicates.normal import content_hash, normal_form
from lmbatch.corpus.duplicates.records import (
    BAND,
    DROP,
    EXACT,
    PLACE,
    REASONS,
    partition_of,
    row_order,
)
from lmbatch.corpus.duplicates.shingles import shingles
from lmbatch.corpus.duplicates.signing import Signer, Signs, dedup_libraries

__all__ = [
    "BAND",
    "DROP",
    "EXACT",
    "PLACE",
    "REASONS",
    "Cluster",
    "Clusters",
    "Decision",
    "Signer",
    "Signs",
    "content_hash",
    "dedup_libraries",
    "drop_records",
    "exact_drops",
    "near_drops",
    "normal_form",
    "one_per_row",
    "partition_of",
    "row_order",
    "shingles",
]
