"""Plans of files that are not there, for arithmetic on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmbatch.corpus import FileProbe
from lmbatch.preprocess import Plan, PlannedFile, PlannedPiece
from lmbatch.preprocess.plan import group_tasks
from lmbatch.store import FileEntry, TokenizerEntry
from support.wudao import config_for

MIB = 2**20
HASH = "0" * 64


def plan_of(sizes: list[int], *, cut: bool = True, task: int = MIB, piece: int = MIB, **changes: Any) -> Plan:
    """Files of these sizes, cut into pieces of ``piece`` bytes (if they may be), in tasks of ``task`` bytes."""
    pieces = [
        PlannedPiece(file=number, start=start, end=min(size, start + step), bytes=min(size, start + step) - start)
        for number, size in enumerate(sizes)
        for step in [piece if cut else size]
        for start in range(0, size, step)
    ]
    config = config_for(Path("/none"), tasks={"bytes": task}, heartbeat_seconds=0, **changes)
    files = tuple(
        PlannedFile(path=f"part-{number}.json", size=size,
                    probe=FileProbe(size=size, splittable=cut, why_not="" if cut else "it is compressed"))
        for number, size in enumerate(sizes)
    )  # fmt: skip
    tokenizer = TokenizerEntry(
        fingerprint="sha256:t", size=500, largest_id=499, eod_token="<|endoftext|>", eod_id=0,
        files=(FileEntry(key="tokenizer/tokenizer.json", size=1000, sha256=HASH),),
    )  # fmt: skip
    return Plan(
        config=config, raw="file:///raw", tokenizer=tokenizer, dtype="uint16", files=files,
        tasks=group_tasks(pieces, task),
    ).sealed()  # fmt: skip
