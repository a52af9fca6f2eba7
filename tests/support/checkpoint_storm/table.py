"""What came of which fault, as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from support.checkpoint_storm.judge import BAD, GOOD
from support.checkpoint_storm.storm import Result


def counts(results: Sequence[Result]) -> dict[str, dict[str, int]]:
    """How often each fault had each outcome; faults in the order of their first run."""
    found: dict[str, Counter[str]] = {}
    for result in results:
        found.setdefault(result.fault, Counter())[result.outcome] += 1
    return {fault: dict(outcomes) for fault, outcomes in sorted(found.items())}


def table(results: Sequence[Result]) -> str:
    """Fault × outcome. Outcomes that must not be have a column only if there were any."""
    met = {result.outcome for result in results}
    columns = [*GOOD, *(outcome for outcome in BAD if outcome in met)]
    rows = [(fault, *(outcomes.get(column, 0) for column in columns)) for fault, outcomes in counts(results).items()]
    totals = ("all", *(sum(result.outcome == column for result in results) for column in columns))
    width = max(len(row[0]) for row in (*rows, totals))
    head = " ".join([" " * width, *(f"{column:>{len(column)}}" for column in columns)])
    lines = [
        " ".join(
            [
                f"{name:<{width}}",
                *(f"{number or '·':>{len(column)}}" for number, column in zip(numbers, columns, strict=True)),
            ]
        )
        for name, *numbers in (*rows, totals)
    ]
    return "\n".join([head, *lines])


def summary(results: Sequence[Result], seed: int, seconds: float, cpu_seconds: float) -> dict[str, Any]:
    """The same for a program. ``cpu_seconds`` are those of the attempts."""
    wrong = [asdict(result) for result in results if not result.good]
    return {
        "seed": seed,
        "runs": len(results),
        "attempts": sum(result.attempts for result in results),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "asynchronous": sum(bool(result.asynchronous) for result in results),
        "outcomes": dict(Counter(result.outcome for result in results)),
        "faults": counts(results),
        "wrong": wrong,
        "said": [[result.fault, result.said] for result in results if result.said],
    }
