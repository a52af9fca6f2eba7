"""torch.compile of what a training step calls. Evaluation and samples, whose shapes vary, call the model itself."""

from __future__ import annotations

import os
import shutil
from typing import Any

import torch
from torch import nn

from lmbatch.config import TrainConfig
from lmbatch.errors import ConfigError

BACKEND: Any = "inductor"
_COMPILERS = ("g++", "clang++", "c++")


def compiled(model: nn.Module, config: TrainConfig) -> nn.Module:
    """``model``, compiled at its first call if ``compute.compile`` says so. Raises ConfigError without a C++ compiler.

    Batches of packed text and of padded examples have one shape for the whole run, so sizes are constants. Rows of a
    masked run are as wide as the longest of a batch: the second width makes that size a variable, and that is all.
    """
    if not config.compute.compile:
        return model
    _check_compiler()
    dynamic = None if config.objective is not None else False
    # Dropout is drawn as without compilation, so that the run stays the same one.
    options: Any = {"fallback_random": True} if BACKEND == "inductor" else None
    made: Any = torch.compile(model, dynamic=dynamic, backend=BACKEND, options=options)
    assert isinstance(made, nn.Module)
    return made


def _check_compiler() -> None:
    wanted = (os.environ["CXX"],) if "CXX" in os.environ else _COMPILERS
    if not any(shutil.which(name) for name in wanted):
        raise ConfigError(
            f"compute.compile: no C++ compiler was found ({', '.join(wanted)})",
            remedy="install g++ (Debian: apt install g++) or name one in CXX, or set compute.compile to false",
        )
