"""How big a model is, and what a token costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from lmbatch.estimate.shape import palm_flops


@dataclass(frozen=True, slots=True)
class ParameterCounts:
    """Parameters of a model; a tied matrix counts once.

    ``embedding`` are the tables that map tokens and positions to vectors, ``non_embedding`` is the rest (an output
    projection of its own included).
    """

    total: int
    embedding: int
    non_embedding: int


def parameter_counts(model: nn.Module) -> ParameterCounts:
    """Count the parameters of ``model``."""
    total = sum(parameter.numel() for parameter in model.parameters())
    tables = {id(m.weight): m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding)}
    embedding = sum(tables.values())
    return ParameterCounts(total=total, embedding=embedding, non_embedding=total - embedding)


def flops_per_token(model: PreTrainedModel, sequence_length: int) -> float:
    """FLOPs of one token's forward and backward pass; see ``estimate.shape.palm_flops``."""
    config: Any = model.config
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    multiplied = parameter_counts(model).non_embedding + tied_output(model)
    return palm_flops(multiplied, int(config.num_hidden_layers), heads * width, sequence_length)


def tied_output(model: PreTrainedModel) -> int:
    """Parameters of an output projection that shares its matrix with the embedding; 0 where it has its own."""
    untyped: Any = model
    output, inputs = untyped.get_output_embeddings(), untyped.get_input_embeddings()
    return int(output.weight.numel()) if output is not None and output.weight is inputs.weight else 0
