"""Sample texts during training, made by the package that generates text everywhere else."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from lmbatch.config import TrainConfig
from lmbatch.train.folder import RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lmbatch.infer import TextGenerator

log = logging.getLogger(__name__)


def text_maker(config: TrainConfig, folder: RunFolder) -> Callable[[PreTrainedModel, str], str] | None:
    """From a model and a prompt to a text; None if the config has no prompts or a library is missing.

    The tokenizer is read from the run folder at the first prompt.
    """
    if not config.samples.prompts:
        return None
    try:
        from lmbatch.infer import TextGenerator
    except ImportError as error:
        log.warning("no sample texts: %s", error)
        return None

    @functools.cache
    def generator(model: PreTrainedModel) -> TextGenerator:
        return TextGenerator(model, folder.tokenizer, context=config.data.sequence_length)

    return lambda model, prompt: generator(model).generate([prompt], config.samples.generate)[0]
