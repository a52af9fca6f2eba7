"""A plain engine with a real loss scaler, which works on a CPU too, around a model in fp32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate.accelerator import Accelerator

from lmbatch.config import ModelConfig
from lmbatch.loader import Batch, Step
from lmbatch.model import build_model
from lmbatch.train.optimizer import build_optimizer
from lmbatch.train.plain_engine import PlainEngine
from support.tiny_corpus import VOCABULARY
from support.tiny_run import TINY_GPT2, tiny_config


@contextlib.contextmanager
def scaled(store: str, folder: Path, *, scale: float = 2.0**10, resume: Path | None = None) -> Iterator[PlainEngine]:
    """Its scale begins at ``scale`` and doubles after three good steps; ``resume`` as ``PlainEngine`` has it."""
    config = tiny_config(store, folder)
    model = build_model(
        ModelConfig.model_validate(TINY_GPT2), vocab_size=len(VOCABULARY), sequence_length=32, eod_id=0, seed=1
    )
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=3)
    engine = PlainEngine(config, accelerator, model, build_optimizer(model, config.optimizer), resume)
    accelerator.native_amp = True
    before = accelerator.state._mixed_precision
    accelerator.state._mixed_precision = "fp16"
    try:
        yield engine
    finally:
        accelerator.state._mixed_precision = before


def made_up(number: int) -> Step:
    """A step of four samples."""
    tokens = np.random.default_rng(number).integers(1, len(VOCABULARY), (4, 33))
    return Step(4 * number, (Batch(4 * number, tuple(range(4 * number, 4 * number + 4)), tokens),))
