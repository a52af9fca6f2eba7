"""Standard input as a lifeline: a process in a container ends when whoever started it has gone.

A signal is no way to say so. Slurm sends SIGTERM, SIGUSR2 and SIGCONT to every process of a step, and what they mean
is for submitit's process outside to decide (go on, or save and requeue); SIGKILL reaches the client of podman or docker
and not the container. The end of a pipe reaches everything, whatever became of the other side.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress

from lmbatch.errors import EXIT_REQUEUE

# Of a step that is preempted, cancelled or near its time limit (slurmstepd, preemption, submitit's own notice).
NOT_OURS = (signal.SIGTERM, signal.SIGUSR2)
_SECONDS_TO_END = 5.0


def hold_lifeline(stream: int = 0, seconds: float = _SECONDS_TO_END) -> None:
    """From now on leave `NOT_OURS` alone, and end when ``stream`` does: by KeyboardInterrupt, or after ``seconds``."""
    for number in NOT_OURS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background may have had it ignored
    threading.Thread(target=_watch, args=(stream, seconds), name="lifeline", daemon=True).start()


def _watch(stream: int, seconds: float) -> None:
    with suppress(OSError):
        while os.read(stream, 4096):
            pass
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGINT)
    time.sleep(seconds)  # it removes its files and its heartbeat meanwhile
    os._exit(EXIT_REQUEUE)
