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

    from lmbatch.infer import MaskFiller, TextGenerator

log = logging.getLogger(__name__)
_CHOICES = 3  # shown of each mask


def text_maker(config: TrainConfig, folder: RunFolder) -> Callable[[PreTrainedModel, str], str] | None:
    """From a model and a prompt to a text; None if the config has no prompts or a library is missing.

    A masked model's text is the prompt with the likeliest tokens, and how likely they are, in place of each mask. The
    tokenizer is read from the run folder at the first prompt.
    """
    if not config.samples.prompts:
        return None
    try:
        from lmbatch.infer import MaskFiller, TextGenerator
    except ImportError as error:
        log.warning("no sample texts: %s", error)
        return None

    @functools.cache
    def filler(model: PreTrainedModel) -> MaskFiller:
        return MaskFiller(model, folder.tokenizer, context=config.data.sequence_length)

    if config.objective is not None:
        return lambda model, prompt: filler(model).fill([prompt], top_k=_CHOICES)[0].text

    @functools.cache
    def generator(model: PreTrainedModel) -> TextGenerator:
        return TextGenerator(model, folder.tokenizer, context=config.data.sequence_length)

    return lambda model, prompt: generator(model).generate([prompt], config.samples.generate)[0]
