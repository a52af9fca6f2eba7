"""The names under which Megatron-LM and GPT-NeoX find the shards of a corpus."""

from __future__ import annotations

from dataclasses import dataclass

from lmbatch.errors import UsageError
from lmbatch.store import MANIFEST_KEY, Manifest, Split, Store


@dataclass(frozen=True, slots=True)
class Prefix:
    """One shard: the path of its ``.bin`` and ``.idx`` without their endings, and its weight in a blend, its tokens."""

    weight: int
    path: str


def shard_prefixes(store: Store, manifest: Manifest, split: Split) -> list[Prefix]:
    """Every shard of a split, in the manifest's order.

    Raises UsageError for a store that is not local, and for a path with white space, which cannot stand in a list
    that is separated by it.
    """
    if store.local_path(MANIFEST_KEY) is None:
        raise UsageError(
            f"{store.uri}: Megatron-LM and GPT-NeoX map shards from a local or shared folder, and this is none",
            remedy="copy the store to a folder first, and give that",
        )
    prefixes = [Prefix(entry.tokens, _prefix(store, entry.bin.key)) for entry in manifest.of(split)]
    spaced = next((prefix.path for prefix in prefixes if len(prefix.path.split()) != 1), None)
    if spaced is not None:
        raise UsageError(f"{spaced!r}: has white space in its path", remedy="make a link to the store without any")
    return prefixes


def _prefix(store: Store, key: str) -> str:
    path = store.local_path(key)
    assert path is not None
    return str(path.with_suffix(""))
