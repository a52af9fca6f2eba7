"""Hugging Face's ids of every document, kept beside the corpus, and the comparison of written shards with them.

    python reference_ids.py make LINES TOKENIZER EOD INTO.npz
    python reference_ids.py compare REFERENCE.npz STORE

`compare` reads the shards of a store as its manifest names them, and prints how many documents there are and how many
differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from lmbatch.shards import Shard
from lmbatch.store import LocalStore, Manifest
from lmbatch.tokens import load_tokenizer
from lmbatch.tokens.engines import HuggingFaceEngine

AT_ONCE = 512


def make(lines: Path, tokenizer: Path, eod: str, into: Path) -> None:
    """Document i is line i. EOD is not among the ids."""
    loaded = load_tokenizer(tokenizer, eod)
    engine = HuggingFaceEngine(loaded.backend)
    texts = [json.loads(line)["content"] for line in lines.open(encoding="utf-8")]
    parts = [engine.encode(texts[at : at + AT_ONCE]) for at in range(0, len(texts), AT_ONCE)]
    counts = np.concatenate([np.diff(part.ends, prepend=0) for part in parts])
    new = into.with_suffix(".new.npz")
    np.savez(new, flat=np.concatenate([part.flat for part in parts]), ends=np.cumsum(counts), eod=loaded.eod_id)
    new.rename(into)


def compare(reference: Path, store: Path) -> dict[str, int]:
    """Documents found, and those whose ids, up to the EOD at their end, are not the reference's."""
    with np.load(reference) as kept:
        flat, ends, eod = kept["flat"], kept["ends"], int(kept["eod"])
    manifest = Manifest.model_validate_json(LocalStore(store).read("manifest.json"))
    found = differ = 0
    for entry in manifest.shards:
        shard = Shard.open(store / entry.bin.key, store / entry.idx.key)
        for row, name in enumerate(pq.read_table(store / entry.docs.key, columns=["id"]).column("id").to_pylist()):
            number = int(name)
            ids = shard.document(row)
            expected = flat[ends[number - 1] if number else 0 : ends[number]]
            found += 1
            differ += not (len(ids) and ids[-1] == eod and np.array_equal(ids[:-1], expected))
    return {"documents": found, "missing": len(ends) - found, "differ": differ}


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))
    else:
        print(json.dumps(compare(Path(sys.argv[2]), Path(sys.argv[3]))))
