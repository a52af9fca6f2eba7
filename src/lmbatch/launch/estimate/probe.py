"""Start the process that probes, and collect what it measures."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lmbatch.errors import LmbatchError
from lmbatch.launch.estimate.ranges import ProbeRange, choose_ranges, shortened
from lmbatch.preprocess import Plan
from lmbatch.store import Receipt, parse_receipt
from lmbatch.tokens import TextTokenizer

RANGES = 8
PROBE_BYTES = 8 * 2**20
PROBE_SECONDS = 10.0
# The beginning of a range that is measured by itself is this part of it: large enough that the encoder compares as
# much of it with Hugging Face as it does of a whole task.
_FIRST_PART = 4


class ProbeError(LmbatchError):
    """The input could not be probed."""


@dataclass(frozen=True)
class Measured:
    """What a probe gives. ``first`` is the small range, measured when warm; ``startup_seconds`` is of the process."""

    first: Receipt | None
    receipts: tuple[Receipt, ...]
    startup_seconds: float


def run_probe(
    plan: Plan,
    tokenizer: TextTokenizer,
    *,
    total_bytes: int = PROBE_BYTES,
    count: int = RANGES,
    seconds: float = PROBE_SECONDS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measured:
    """Do the real work on ``count`` ranges of the input, in a process of its own and a temporary folder.

    Nothing is written to the store. ``on_progress`` is called with ranges done and all. Raises ProbeError with what
    the process said.
    """
    ranges = choose_ranges(plan, count, max(1, total_bytes // count))
    small = shortened(plan, ranges[0], max(1, ranges[0].bytes // _FIRST_PART))
    receipts: list[Receipt] = []
    begun, ready = time.monotonic(), 0.0
    spool = plan.config.spool if _is_folder(plan.config.spool) else None
    with TemporaryDirectory(prefix="lmbatch-probe-", dir=spool, ignore_cleanup_errors=True) as folder:
        request = _request(plan, tokenizer, [small, small, *ranges], folder, seconds)
        words = Path(folder) / "stderr"
        for answer in _answers(request, words):
            if "ready" in answer:
                ready = time.monotonic() - begun
            elif "receipt" in answer:
                receipts.append(parse_receipt(json.dumps(answer["receipt"]).encode(), "the probe"))
                on_progress(max(0, len(receipts) - 2), len(ranges))
            elif "error" in answer:
                raise ProbeError(str(answer["error"]), remedy=answer["remedy"])
        last_words = words.read_text(errors="replace").strip().rpartition("\n")[2]
    if len(receipts) < 3:
        raise ProbeError(
            f"the probe ended early: {last_words or 'it gave no reason'}",
            remedy="`--no-probe` plans without it",
        )
    return Measured(receipts[1], tuple(receipts[2:]), ready)


def _answers(request: str, words: Path) -> Iterator[dict[str, Any]]:
    """What the process answers, as it comes; its stderr goes to the file ``words``."""
    command = [sys.executable, "-m", f"{__package__}.worker"]
    with (
        words.open("wb") as stderr,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with suppress(BrokenPipeError):  # it died at once; its words tell why
                process.stdin.write(request.encode())
                process.stdin.close()
            yield from map(_parsed, process.stdout)
        finally:
            process.kill()


def _request(plan: Plan, tokenizer: TextTokenizer, ranges: Sequence[ProbeRange], folder: str, seconds: float) -> str:
    value: dict[str, Any] = {
        "plan": plan.model_copy(update={"tasks": (), "partitions": None}).model_dump(mode="json"),
        "tokenizer": str(tokenizer.folder.absolute()),
        "eod": tokenizer.eod_token,
        "folder": folder,
        "seconds": seconds,
        "ranges": [
            {"pieces": [piece.model_dump(mode="json") for piece in probe.pieces], "limit": probe.limit}
            for probe in ranges
        ],
    }
    return json.dumps(value, ensure_ascii=False)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:  # a library that prints
        return {}
    return value if isinstance(value, dict) else {}


def _is_folder(path: str | None) -> bool:
    return path is not None and Path(path).is_dir()
