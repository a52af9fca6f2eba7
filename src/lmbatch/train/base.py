"""What a run begins with, where that is somebody else's weights (``model.base``)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lmbatch.checkpoint import Checkpoints
from lmbatch.config import ModelConfig
from lmbatch.errors import ResumeError, TokenizerError
from lmbatch.loader import TokenData
from lmbatch.model.base import laid_over, pin_base
from lmbatch.tokens import load_tokenizer
from lmbatch.tokens.same import difference
from lmbatch.train.folder import RunFolder

log = logging.getLogger(__name__)


def resolve_base(model: ModelConfig, checkpoints: Checkpoints, data: TokenData, folder: RunFolder) -> ModelConfig:
    """The model's config with all that its ``base`` decides filled in; the same config if it has none.

    A run that has a checkpoint goes on without the folder: what it needs stands in there. Raises what ``pin_base``
    raises, and TokenizerError for a folder whose tokenizer is not that of the shards.
    """
    if model.base is None:
        return model
    base = Path(model.base)
    stored = None if base.exists() else _stored(checkpoints)
    if stored is not None:
        log.info("%s is gone: the model's settings are those of the checkpoint", base)
        return _as_before(model, stored)
    pinned = pin_base(model)
    _check_tokenizer(base, data, folder)
    return pinned


def _stored(checkpoints: Checkpoints) -> dict[str, Any] | None:
    found, _ = checkpoints.newest_valid()
    return None if found is None else dict(found.facts.config_identity["model"])


def _as_before(model: ModelConfig, stored: dict[str, Any]) -> ModelConfig:
    digest = stored.get("base_digest")
    if digest is None:
        raise ResumeError(
            f"model.base: {model.base} does not exist, and this run did not begin with anybody's weights",
            remedy="leave model.base out, or give the run another name",
        )
    settings = laid_over(stored["config"], model.config, "the checkpoint")
    wanted = model.base_digest if model.base_digest is not None else digest
    return model.model_copy(update={"config": settings, "base_digest": wanted})


def _check_tokenizer(base: Path, data: TokenData, folder: RunFolder) -> None:
    entry = data.manifest.tokenizer
    folder.copy_tokenizer(data.store, data.manifest)
    shards = load_tokenizer(folder.tokenizer, entry.eod_token)
    try:
        found = load_tokenizer(base, entry.eod_token)
    except TokenizerError as error:
        raise TokenizerError(
            f"model.base: {error.message}, so its weights may mean other tokens than the shards",
            remedy="put the tokenizer that the weights were trained with into the folder",
        ) from error
    unlike = difference(found, shards)
    if unlike is not None:
        raise TokenizerError(
            f"model.base: {base} has another tokenizer than the shards: {unlike} (the first is the folder's, the "
            "second the shards')",
            remedy="preprocess the corpus with the folder's tokenizer: tokenizer.path in the corpus config",
        )
