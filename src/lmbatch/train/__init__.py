"""Training: one loop that can be stopped at any time and goes on where it was.

::

    TrainConfig ─┐                       ┌─▶ checkpoints/   (lmbatch.checkpoint)
    manifest ────┼─▶ session ──▶ loop ───┼─▶ metrics.jsonl, samples.jsonl, tensorboard/
    shards ──────┘      │         ▲      └─▶ progress on the terminal or in the log
                        │         └── stop: SIGTERM, SIGINT, SIGUSR2, or the file `stop` in the run folder
                        └─▶ attempts.jsonl (the run ledger: who ran when, why it ended, what it cost)

``python -m lmbatch.train --config F`` and ``lmbatch train`` both end in ``train``. The modules ``stop``, ``parent``,
``folder``, ``records``, ``metrics``, ``guards``, ``attempts``, ``schedule``, ``planning`` and ``launcher`` import no
torch: a signal must be honoured before the heavy imports are done, and `lmbatch status` runs on a login node.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lmbatch.errors import EXIT_DONE, EXIT_REQUEUE
from lmbatch.train.stop import StopFlag

# `python -m lmbatch.train` imports this package before it can handle a signal: nothing slow belongs here.
if TYPE_CHECKING:
    from lmbatch.config import TrainConfig


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How an attempt ended, if not by an error.

    ``step`` optimizer steps are done and saved, of ``total_steps``; ``resumed_from`` is the step that this attempt
    began at; ``loss`` is that of the last step it took (None: it took none); ``stopped`` names the signal or ``stop
    file`` that ended it early, None for a finished run.
    """

    run_dir: Path
    step: int
    total_steps: int
    resumed_from: int
    loss: float | None
    stopped: str | None

    @property
    def exit_code(self) -> int:
        """0 for a finished run, 75 (run me again) for a stopped one."""
        return EXIT_DONE if self.stopped is None else EXIT_REQUEUE


def train(config: TrainConfig, stop: StopFlag | None = None, *, started: float | None = None) -> TrainResult:
    """Train, or go on training, the run that ``config`` names, until it is done or ``stop`` is set.

    ``stop`` is an installed flag where signals are to be honoured; without one only the stop file is. ``started`` is
    the ``time.monotonic()`` from which the seconds to the first step count.
    Raises ConfigError, LaunchError, TokenizerError, RunBusyError, ResumeError, NonFiniteLossError,
    LossSpikeError, and what the store and the checkpoints raise.
    """
    from lmbatch.train.session import run_attempt  # torch is imported here, after the signal handlers are in place

    return run_attempt(config, stop or StopFlag(), started=started)


__all__ = ["StopFlag", "TrainResult", "train"]
