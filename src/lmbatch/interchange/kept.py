"""What another way of cutting documents into examples would keep of a corpus that lost nothing.

It follows from the documents' lengths alone, which stand in the shards' indexes: no text is read or encoded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmbatch.config import ChunkingConfig
from lmbatch.errors import UsageError
from lmbatch.loader import TokenReader
from lmbatch.store import SPLITS, Manifest, Split


@dataclass(frozen=True, slots=True)
class Kept:
    """Tokens of text (EODs not counted) of a corpus, and how many of them a way of cutting keeps."""

    documents: int
    encoded: int
    kept: int

    @property
    def share(self) -> float:
        """The share of the tokens that is kept, 0 to 1."""
        return self.kept / self.encoded if self.encoded else 1.0


def kept_tokens(lengths: npt.NDArray[np.int64], chunking: ChunkingConfig) -> int:
    """Of documents with ``lengths`` tokens of text (no EOD), the tokens that are kept: pure arithmetic.

    Raises UsageError for ``lines``, which depends on the text.
    """
    if chunking.mode in ("packed", "split_lines", "best_fit"):
        return int(lengths.sum())
    if chunking.mode == "drop_short":
        return int((lengths // chunking.most * chunking.most).sum())
    if chunking.mode == "truncate":
        return int(np.minimum(lengths, chunking.most - 1).sum())
    raise UsageError("what `lines` keeps depends on the text", remedy="preprocess with chunking.mode=lines instead")


def what_is_kept(manifest: Manifest, reader_of: Mapping[Split, TokenReader], chunking: ChunkingConfig) -> Kept:
    """The sum over both splits of a corpus that is packed, or whose lines are split up.

    ``reader_of`` are readers of the splits that have shards.

    Raises UsageError for a corpus that was cut otherwise: what was thrown away is not in its shards.
    """
    if manifest.chunking is not None and manifest.chunking.mode != "split_lines":
        raise UsageError(
            f"the corpus was cut (chunking.mode = {manifest.chunking.mode}), so its shards do not hold all tokens, or "
            "not by document",
            remedy="its own ledger says what was thrown away; for another way, preprocess it packed",
        )
    total = Kept(0, 0, 0)
    for split in SPLITS:
        for number in range(len(manifest.of(split))):
            lengths = _text_lengths(reader_of[split], number)
            found = Kept(len(lengths), int(lengths.sum()), kept_tokens(lengths, chunking))
            total = Kept(total.documents + found.documents, total.encoded + found.encoded, total.kept + found.kept)
    return total


def _text_lengths(reader: TokenReader, number: int) -> npt.NDArray[np.int64]:
    reader.hold([number], [])
    index = reader.index(number)
    # Every sequence ends with one EOD; a packed document is one sequence, a line that was split up several.
    lengths: npt.NDArray[np.int64] = index.document_tokens() - np.diff(index.firsts)
    return lengths
