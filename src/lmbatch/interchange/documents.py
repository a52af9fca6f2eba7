"""The documents of a split as lists of ids, one after the other, for who wants to look at each."""

from __future__ import annotations

from collections.abc import Iterator

from lmbatch.config import CacheConfig
from lmbatch.errors import UsageError
from lmbatch.loader import ShardCache, TokenReader, cache_folder
from lmbatch.store import Manifest, Split, Store

# The modes whose tokens are all those of the text.
_WHOLE = (None, "packed", "split_lines")


def whole_documents(store: Store, manifest: Manifest, split: Split) -> Iterator[tuple[list[int], int]]:
    """The ids of each sequence of a split (a document, or a part of a line that was split up), its EOD left out, and
    UTF-8 bytes: those of a whole shard with its last sequence, for they are not counted by document.

    Raises UsageError for a corpus that lost tokens, whose bytes are not those of its tokens, and for an empty split.
    """
    mode = None if manifest.chunking is None else manifest.chunking.mode
    if mode not in _WHOLE:
        raise UsageError(
            f"{store.uri}: its documents were cut ({mode}), so its sequences are not those of its texts",
            remedy="take the text itself, or a packed corpus",
        )
    entries = manifest.of(split)
    if not entries:
        raise UsageError(f"{store.uri}: the split {split} is empty", remedy="choose the other one")
    cache = CacheConfig()
    shards = ShardCache(store, cache_folder(cache), cache.max_bytes)
    reader = TokenReader(shards, entries, manifest.dtype, indexed=True)
    try:
        for number, entry in enumerate(entries):
            reader.hold([number], [])
            index, tokens = reader.index(number), reader.tokens(number)
            for row in range(index.sequences):
                start, length = index.place(row)
                text_bytes = entry.text_bytes if row == index.sequences - 1 else 0
                yield tokens[start : start + length - 1].tolist(), text_bytes
    finally:
        reader.close()
