"""How big a model is, what a token costs, and what a device could do at best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel

Precision = Literal["fp32", "bf16", "fp16"]

# Dense peak FLOP/s (no sparsity) by a part of the device's name, the more special name first. Matrix products with
# float32 accumulation for bf16 and fp16; float32 without tensor cores, since TF32 is not switched on.
# Sources, NVIDIA: GA102 whitepaper v2 (RTX 3090), Ada whitepaper v2 (RTX 4090), A100, H100 and V100 data sheets.
_PEAKS: tuple[tuple[str, dict[Precision, float]], ...] = (
    ("H100 PCIe", {"bf16": 756e12, "fp16": 756e12, "fp32": 51e12}),
    ("H100", {"bf16": 989.4e12, "fp16": 989.4e12, "fp32": 67e12}),
    ("A100", {"bf16": 312e12, "fp16": 312e12, "fp32": 19.5e12}),
    ("V100", {"fp16": 125e12, "fp32": 15.7e12}),
    ("RTX 4090", {"bf16": 165.2e12, "fp16": 165.2e12, "fp32": 82.6e12}),
    ("RTX 3090 Ti", {"bf16": 80e12, "fp16": 80e12, "fp32": 40e12}),
    ("RTX 3090", {"bf16": 71e12, "fp16": 71e12, "fp32": 35.6e12}),
)


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
    """FLOPs of one token's forward and backward pass: ``6·N + 12·L·H·Q·T``.

    The formula is that of PaLM, appendix B (arXiv:2204.02311): N parameters that are multiplied with, L layers, H
    heads of width Q, T = ``sequence_length``. Looking a vector up costs nothing, so N leaves the embedding tables out,
    but the output projection is a product even where it shares its matrix with the embedding.
    """
    config: Any = model.config
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    multiplied = parameter_counts(model).non_embedding + _tied_output(model)
    return 6.0 * multiplied + 12.0 * int(config.num_hidden_layers) * heads * width * sequence_length


def _tied_output(model: PreTrainedModel) -> int:
    untyped: Any = model
    output, inputs = untyped.get_output_embeddings(), untyped.get_input_embeddings()
    return int(output.weight.numel()) if output is not None and output.weight is inputs.weight else 0


def peak_flops(device_name: str, precision: str) -> float | None:
    """Peak FLOP/s of one device by its CUDA name, or None where it is not known (a CPU, for one)."""
    for part, peaks in _PEAKS:
        if part.lower() in device_name.lower():
            return {str(key): value for key, value in peaks.items()}.get(precision)
    return None
