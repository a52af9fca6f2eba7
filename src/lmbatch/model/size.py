"""The shape of a model of any type, from transformers' own classes on the meta device: no byte of weights is made."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedConfig, PreTrainedModel

from lmbatch.config import ModelConfig
from lmbatch.estimate.shape import BLOCKS, ModelShape
from lmbatch.model.arithmetic import parameter_counts, tied_output
from lmbatch.model.build import MaskedIds, model_config

_ATTENTION_DROPOUT = ("attn_pdrop", "attention_dropout", "attention_probs_dropout_prob")


def shape_of(model: PreTrainedModel) -> ModelShape:
    """The shape of a model that is there, on any device. A type without a formula of its own counts as a gated one."""
    config: Any = model.config
    counts = parameter_counts(model)
    table: Any = model.get_input_embeddings()
    heads, hidden = int(config.num_attention_heads), int(config.hidden_size)
    return ModelShape(
        type=config.model_type,
        block=BLOCKS.get(config.model_type, "gated"),
        layers=int(config.num_hidden_layers),
        hidden=hidden,
        heads=heads,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(config, "head_dim", None) or hidden // heads),
        inner=int(getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden),
        vocabulary=int(table.weight.shape[0]),  # padding included
        parameters=counts.total,
        embedding=counts.embedding,
        multiplied=counts.non_embedding + tied_output(model),
        dropout=_any(config, "resid_pdrop", "hidden_dropout", "hidden_dropout_prob"),
        attention_dropout=_any(config, *_ATTENTION_DROPOUT),
    )


def _any(config: Any, *keys: str) -> bool:
    return any((getattr(config, key, 0.0) or 0.0) > 0 for key in keys)


def planned_shape(
    config: ModelConfig, *, vocabulary: int, sequence: int, masked: MaskedIds | None, compute: int
) -> ModelShape:
    """The shape of the model that a config asks for. ``compute``: bytes of a number in a matrix product.

    A type without a formula for its activations is traced: a forward pass of fake tensors, whose saved bytes are
    counted. Raises what ``model_config`` does.
    """
    built = model_config(config, vocab_size=vocabulary, sequence_length=sequence, eod_id=0, masked=masked)
    auto: Any = AutoModelForCausalLM if masked is None else AutoModelForMaskedLM
    with torch.device("meta"):
        shape = shape_of(auto.from_config(built))
    if built.model_type in BLOCKS:
        return shape
    copies = compute * shape.multiplied if compute < torch.float32.itemsize else 0  # counted by themselves
    traced = max(0, saved_bytes(auto, built, sequence, compute) - copies)
    return shape.model_copy(update={"block": "traced", "traced": traced})


def saved_bytes(auto: Any, config: PreTrainedConfig, sequence: int, compute: int) -> int:
    """Bytes that autograd keeps of one sample, parameters apart, by the rules of the CPU (which has no GPU's kernels
    but the same operations). Dropout within attention is left out: on a GPU its kernels keep no matrix of it."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    for key in _ATTENTION_DROPOUT:
        if hasattr(config, key):
            setattr(config, key, 0.0)
    kept: dict[int, torch.UntypedStorage] = {}
    with FakeTensorMode():
        model = auto.from_config(config).train()
        own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage
            return tensor

        ids = torch.zeros((1, sequence), dtype=torch.int64)
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=compute < torch.float32.itemsize),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        ):
            model(input_ids=ids)
        return sum(storage.nbytes() for storage in kept.values())
