"""``python -m support.tiny_launched --config F``: training that asks to be stopped after step 6.

Under accelerate's launcher the launcher gets the signal; under torchrun the process of rank 1 does.
"""

from __future__ import annotations

import os
import signal
import sys

from lmbatch.train.__main__ import main
from lmbatch.train.engine import Engine
from lmbatch.train.parent import command_of, is_accelerate_launcher
from lmbatch.train.stop import StopFlag


def ask() -> None:
    if is_accelerate_launcher(command_of(os.getppid())):
        os.kill(os.getppid(), signal.SIGTERM)
    elif os.environ.get("RANK") == "1":
        os.kill(os.getpid(), signal.SIGUSR2)


def apply(self, lr, original=Engine.apply, taken=[0]) -> None:  # noqa: B006  (it counts over the calls)
    original(self, lr)
    taken[0] += 1
    if taken[0] == 6:
        ask()


Engine.apply = apply
sys.exit(main(stop=StopFlag().install()))
