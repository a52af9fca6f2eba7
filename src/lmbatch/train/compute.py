"""The model made ready to be computed as the section ``compute`` has it, before an engine takes it."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from lmbatch.config import TrainConfig
from lmbatch.errors import ConfigError
from lmbatch.model import choose_attention, fit_loss_head, require_loss_head


def prepare_model(model: PreTrainedModel, config: TrainConfig, *, on_gpu: bool, precision: str) -> None:
    """Attention, loss head and activation checkpointing. Raises ConfigError for what this model cannot do."""
    compute = config.compute
    apart = bool(config.data.document_attention)
    choose_attention(model, compute.attention, on_gpu=on_gpu, precision=precision, documents_apart=apart)
    if compute.loss_chunk_tokens:
        require_loss_head(model, chunk=compute.loss_chunk_tokens)
    elif config.objective is not None:
        fit_loss_head(model, chunk=0)  # a masked model's logits are needed where a token is hidden, and nowhere else
    if compute.activation_checkpointing:
        _checkpoint_activations(model)


def _checkpoint_activations(model: PreTrainedModel) -> None:
    plain: Any = model
    # transformers has renamed it; the first argument is the same.
    switch = getattr(plain, "activation_checkpointing_enable", None) or plain.gradient_checkpointing_enable
    try:
        switch({"use_reentrant": False})
    except ValueError as error:
        raise ConfigError(
            f"compute.activation_checkpointing: the model type `{model.config.model_type}` does not know it",
            remedy="set compute.activation_checkpointing to false",
        ) from error
