"""What the demo and the recipes have in common: stages that are announced and timed, and lmbatch's verbs in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from lmbatch.train.attempts import read_attempts

BIN = Path(sys.executable).parent


def set_environment() -> None:
    """What the verbs need to find in it, where the user has said nothing."""
    # accelerate's launcher sets one thread where nothing is said
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    if not Path("/dev/nvidia0").exists():
        # or DeepSpeed, wherever it is imported, warns of the missing GPU
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


@dataclass
class Story:
    """What happened, for the table at the end. ``out`` is where stages are announced."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    rows: list[tuple[str, str, float]] = field(default_factory=list)

    @contextmanager
    def stage(self, title: str) -> Iterator[Callable[[str], None]]:
        """Announce a stage, time it, and keep the sentence that it reports."""
        print(f"\n── {title}", file=self.out, flush=True)
        begun = time.monotonic()
        said: list[str] = []
        yield said.append
        self.rows.append((title, "; ".join(said), time.monotonic() - begun))


class VerbError(SystemExit):
    """A verb of lmbatch ended with an error, which it has told on stderr itself; ``status`` is its exit code."""

    def __init__(self, arguments: tuple[str, ...], status: int, output: str) -> None:
        super().__init__(f"`lmbatch {' '.join(arguments)}` ended with {status}\n{output}".rstrip())
        self.status = status


def lmbatch(*arguments: str) -> str:
    """Run a verb; its stdout. Its messages and progress go where ours go. Raises VerbError."""
    done = subprocess.run([str(BIN / "lmbatch"), *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise VerbError(arguments, done.returncode, done.stdout)
    return done.stdout.strip()


def lmbatch_json(*arguments: str) -> dict[str, Any]:
    """Run a verb with --json."""
    value: dict[str, Any] = json.loads(lmbatch(*arguments, "--json"))
    return value


def endings(run: str) -> list[str | None]:
    """Why each attempt at the run ended, by the run ledger; [] for a run that never started."""
    return [attempt.why for attempt in read_attempts(Path("runs") / run)]


def shards_sentence(facts: dict[str, Any]) -> str:
    """Documents, tokens and memory in one line."""
    ledger = facts["ledger"]
    return (
        f"{ledger['records']:,} records = {sum(ledger['documents'].values()):,} documents + "
        f"{sum(ledger['dropped'].values())} dropped + {sum(ledger['quarantined'].values())} quarantined; "
        f"{sum(facts['tokens'].values()):,} tokens in {facts['shards']} shards; "
        f"peak memory of a worker {facts['peak_memory_bytes'] / 2**20:.0f} MiB; {facts['digest'][:19]}…"
    )


def status_sentence(run: str) -> str:
    """Loss, attempts and what was lost."""
    facts = lmbatch_json("status", f"runs/{run}")
    endings = ", ".join(attempt["why"] or "?" for attempt in facts["attempts"])
    first_steps = [attempt["seconds_to_first_step"] for attempt in facts["attempts"]]
    resumed = ", ".join(f"{seconds:.1f} s" for seconds in first_steps[1:] if seconds is not None)
    validation = facts["validation_loss"]
    return (
        f"{facts['step']} steps, loss {facts['loss']:.4f}, "
        + (f"validation {validation:.4f}; " if validation is not None else "no validation; ")
        + f"attempts: {endings}; steps lost: {facts['steps_lost']}"
        + (f"; to the first step again: {resumed}" if resumed else "")
    )


def load_with_transformers(folder: str, auto: str = "AutoModelForCausalLM") -> str:
    """Load the export in a process of its own that knows nothing of lmbatch; ``auto`` is transformers' class for it."""
    script = (
        "import sys, transformers as t; t.logging.set_verbosity_error(); t.logging.disable_progress_bar()\n"
        "model = getattr(t, sys.argv[2]).from_pretrained(sys.argv[1]); t.AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "print(f'{sys.argv[2]} loads it: {type(model).__name__}, {model.num_parameters():,} parameters')"
    )
    done = subprocess.run([sys.executable, "-c", script, folder, auto], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def print_story(story: Story) -> None:
    """What happened, as a table."""
    from lmbatch.cli.common import human_seconds, print_table

    rows = [(title, human_seconds(seconds), said) for title, said, seconds in story.rows]
    print_table(("stage", "took", "what happened"), rows, pipe_width=120)
