"""More rows than the vocabulary has entries, for matrix products of a handy size: they change the speed and no number.

::

    table, output matrix: V rows ── pad_vocabulary ──▶ P rows, P the next multiple; the new ones are zeros
                                                         │ logits are cut to V columns before anybody sees them
    V rows, the trained ones     ◀── cut_vocabulary ────┘

Others (Megatron-LM for one) let the additional rows take part in the softmax. Then a padded run is another run, its
export is not the model that was trained, and perplexities of two paddings cannot be compared. Here the additional rows
get gradients of zero, stay zero, and stand in a checkpoint; ``config.vocab_size`` stays V, so an export never shows
them. The price is a copy of the logits in fp32 training; in half precision they are copied anyway, to become float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lmbatch.errors import ConfigError
from lmbatch.estimate.shape import padded_rows

_TOLERANCE = 1e-5  # of the largest logit; a matrix product of another size may round in another way


def pad_vocabulary(model: PreTrainedModel, multiple: int | None) -> None:
    """Round the rows of the embedding and of the output up, and let the logits be as wide as before.

    Raises ConfigError for a type of model whose logits are not the same afterwards. Moves no random generator.
    """
    size = _size(model)
    rows = padded_rows(size, multiple)
    if rows == size:
        return
    try:
        _check_rows(model, size)
        before = _logits(model)
        _resize(model, rows)
        _fill(model, size)
        _narrow(model, size)
        after = _logits(model)
    except (NotImplementedError, AttributeError, LookupError, RuntimeError, ValueError, TypeError) as error:
        raise _cannot(model, " ".join(str(error).split())[:200]) from error
    if after.shape != before.shape or (after - before).abs().max() > _TOLERANCE * before.abs().max():
        raise _cannot(model, "its logits change")


def cut_vocabulary(model: PreTrainedModel) -> None:
    """Undo ``pad_vocabulary``; a model that was not padded stays as it is."""
    untyped: Any = model
    handle = getattr(untyped, "_vocabulary_padding", None)
    if handle is not None:
        handle.remove()
        _resize(model, _size(model))


def cut_to(tensor: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The first rows of a padded tensor, as many as ``shape`` has; any other tensor as it is."""
    return tensor if tuple(tensor.shape) == tuple(shape) else tensor[: shape[0]]


def _check_rows(model: PreTrainedModel, size: int) -> None:
    untyped: Any = model
    found = [untyped.get_input_embeddings().weight.shape[0], untyped.get_output_embeddings().weight.shape[0]]
    if found != [size, size]:
        raise ValueError(f"embedding and output have {found[0]} and {found[1]} rows for {size} entries")


def _size(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().vocab_size)


def _resize(model: PreTrainedModel, rows: int) -> None:
    untyped: Any = model
    size = _size(model)
    with torch.random.fork_rng(devices=[]):
        untyped.resize_token_embeddings(rows, mean_resizing=False)
    # What other code asks for is how many entries there are, not how many rows.
    untyped.config.get_text_config().vocab_size = untyped.vocab_size = size


def _fill(model: PreTrainedModel, size: int) -> None:
    untyped: Any = model
    with torch.no_grad():
        untyped.get_input_embeddings().weight[size:] = 0
        output = untyped.get_output_embeddings()
        output.weight[size:] = 0
        if output.bias is not None:
            output.bias[size:] = 0


def _narrow(model: PreTrainedModel, size: int) -> None:
    untyped: Any = model
    output: nn.Module = untyped.get_output_embeddings()
    untyped._vocabulary_padding = output.register_forward_hook(partial(_first_columns, size))


def _first_columns(size: int, module: nn.Module, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
    return logits[..., :size] if logits.ndim else logits  # a scalar is the loss itself (head.py)


def _logits(model: PreTrainedModel) -> torch.Tensor:
    untyped: Any = model
    training = model.training
    untyped.eval()
    ids = torch.arange(1, 3, device=model.device)[None] % _size(model)
    try:
        with torch.no_grad():
            found: torch.Tensor = untyped(input_ids=ids).logits
    finally:
        model.train(training)
    return found


def _cannot(model: PreTrainedModel, why: str) -> ConfigError:
    return ConfigError(
        f"model.pad_vocab_to_multiple: a model of type `{model.config.model_type}` cannot be padded: {why}",
        remedy="leave it out, or choose a tokenizer with a handy number of entries",
    )
