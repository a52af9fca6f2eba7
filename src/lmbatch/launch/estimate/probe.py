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
from lmbatch.launch.estimate.dedup_rates import Compared, DedupRates, dedup_rates_of
from lmbatch.launch.estimate.ranges import ProbeRange, choose_ranges, shortened
from lmbatch.preprocess import Plan
from lmbatch.preprocess.dedup import CompareReceipt, SignReceipt
from lmbatch.store import Receipt, parse_receipt
from lmbatch.tokens import TextTokenizer

RANGES = 8
PROBE_BYTES = 8 * 2**20
PROBE_SECONDS = 10.0
# The beginning of a range that is measured by itself is this part of it: large enough that the encoder compares as
# much of it with Hugging Face as it does of a whole task.
_FIRST_PART = 4
# submitit starts a worker from a process of its own, which the probe does not have.
LAUNCHER_STARTS = 2.0


class ProbeError(LmbatchError):
    """The input could not be probed."""


@dataclass(frozen=True)
class Measured:
    """What a probe gives. ``first`` is the small range, measured when warm; ``startup_seconds`` is of the process."""

    first: Receipt | None
    receipts: tuple[Receipt, ...]
    startup_seconds: float
    dedup: DedupRates | None = None  # where the plan wants duplicates dropped


def run_probe(
    plan: Plan,
    tokenizer: TextTokenizer,
    *,
    total_bytes: int = PROBE_BYTES,
    count: int = RANGES,
    seconds: float = PROBE_SECONDS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measured:
    """Do the real work on ``count`` ranges of the input, in processes of their own and a temporary folder.

    The stages of de-duplication have a process to themselves, and ``seconds`` too. Nothing is written to the store.
    ``on_progress`` is called with ranges done and all. Raises ProbeError with what the process said.
    """
    ranges = choose_ranges(plan, count, max(1, total_bytes // count))
    small = shortened(plan, ranges[0], max(1, ranges[0].bytes // _FIRST_PART))
    whole = len(ranges) * (1 if plan.partitions is None else 2)
    spool = plan.config.spool if _is_folder(plan.config.spool) else None
    receipts: list[Receipt] = []
    with TemporaryDirectory(prefix="lmbatch-probe-", dir=spool, ignore_cleanup_errors=True) as folder:
        request = _request(plan, tokenizer, [small, small, *ranges], folder, seconds)
        process = _Process(request, Path(folder) / "stderr")
        for kind, value in process.answers():
            if kind == "receipt":
                receipts.append(parse_receipt(json.dumps(value).encode(), "the probe"))
                on_progress(max(0, len(receipts) - 2), whole)
        if len(receipts) < 3:
            raise process.ended_early()
        ready, dedup = process.startup_seconds, None
        if plan.partitions is not None:
            request = _request(plan, tokenizer, [small, *ranges], folder, seconds, work="dedup")
            process = _Process(request, Path(folder) / "stderr")
            dedup = _dedup_rates(process, plan, lambda done: on_progress(len(ranges) + done, whole))
    return Measured(receipts[1], tuple(receipts[2:]), ready, dedup)


def _dedup_rates(process: _Process, plan: Plan, on_progress: Callable[[int], None]) -> DedupRates:
    """Three rounds of signing and then comparing: the small range to get warm, the same to measure, all ranges."""
    rounds: list[tuple[list[SignReceipt], Compared]] = []
    signs: list[SignReceipt] = []
    for kind, value in process.answers():
        if kind == "signed":
            signs.append(SignReceipt.model_validate(value))
            on_progress(len(signs) if len(rounds) == 2 else 0)
        elif kind == "compared":
            rounds.append((signs, Compared(CompareReceipt.model_validate(value), _rows(signs))))
            signs = []
    if len(rounds) < 3:
        raise process.ended_early()
    ([cold], cold_compared), ([first], first_compared), (signs, compared) = rounds
    startup = process.startup_seconds * LAUNCHER_STARTS
    starts = (
        max(0.0, cold.cpu_seconds - first.cpu_seconds),
        max(0.0, cold_compared.receipt.cpu_seconds - first_compared.receipt.cpu_seconds),
    )
    return dedup_rates_of(signs, first, [compared], first_compared, plan.input_bytes, startup, starts=starts)


def _rows(signs: Sequence[SignReceipt]) -> int:
    regions = (region for receipt in signs for region in receipt.regions if region.kind != "places")
    return sum(sum(region.counts) for region in regions)


class _Process:
    """A process that probes; its stderr goes to the file ``words``."""

    def __init__(self, request: str, words: Path) -> None:
        self._request, self._words = request, words
        self.startup_seconds = 0.0

    def answers(self) -> Iterator[tuple[str, Any]]:
        """What it answers, as it comes: a kind and a value. Raises ProbeError for what it could not do."""
        begun = time.monotonic()
        for answer in self._lines():
            if "ready" in answer:
                self.startup_seconds = time.monotonic() - begun
            elif "error" in answer:
                raise ProbeError(str(answer["error"]), remedy=answer["remedy"])
            yield from answer.items()

    def ended_early(self) -> ProbeError:
        """For a process that has not answered all that it should have."""
        last_words = self._words.read_text(errors="replace").strip().rpartition("\n")[2]
        return ProbeError(
            f"the probe ended early: {last_words or 'it gave no reason'}",
            remedy="`--no-probe` plans without it",
        )

    def _lines(self) -> Iterator[dict[str, Any]]:
        command = [sys.executable, "-m", f"{__package__}.worker"]
        with (
            self._words.open("wb") as stderr,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr) as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                with suppress(BrokenPipeError):  # it died at once; its words tell why
                    process.stdin.write(self._request.encode())
                    process.stdin.close()
                yield from map(_parsed, process.stdout)
            finally:
                process.kill()


def _request(
    plan: Plan, tokenizer: TextTokenizer, ranges: Sequence[ProbeRange], folder: str, seconds: float,
    work: str = "tokenize",
) -> str:  # fmt: skip
    value: dict[str, Any] = {
        "work": work,
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
