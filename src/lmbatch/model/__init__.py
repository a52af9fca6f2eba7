"""Models: architectures by config, and the arithmetic of their size and speed.

::

    ModelConfig {type, config} ─┐
    vocabulary, EOD (manifest) ─┼─ build_model ──▶ a transformers causal (or masked) language model, seeded
    sequence_length, seed ──────┘                     │
    or a folder (model.base) ───── load_base ─────────┤
                                                      ├─ causal_loss, masked_loss(logits, labels) ──▶ sum
                                                      ├─ fit_loss_head: the same without logits of the whole batch
                                                      └─ parameter_counts, flops_per_token ──▶ the run's summary

Called by ``train`` (the loop) and ``infer`` (export). An architecture that transformers knows as a causal or a
masked language model needs a config and no code.
"""

from lmbatch.model.apart import check_documents_apart
from lmbatch.model.arithmetic import ParameterCounts, flops_per_token, parameter_counts
from lmbatch.model.attention import choose_attention
from lmbatch.model.base import load_base, pin_base
from lmbatch.model.build import MaskedIds, build_model, model_config
from lmbatch.model.head import LossHead, Targets, fit_loss_head, loss_head, require_loss_head
from lmbatch.model.loss import causal_loss, masked_loss
from lmbatch.model.padding import cut_to, cut_vocabulary, pad_vocabulary

__all__ = [
    "LossHead",
    "MaskedIds",
    "ParameterCounts",
    "Targets",
    "build_model",
    "causal_loss",
    "check_documents_apart",
    "choose_attention",
    "cut_to",
    "cut_vocabulary",
    "fit_loss_head",
    "flops_per_token",
    "load_base",
    "loss_head",
    "masked_loss",
    "model_config",
    "pad_vocabulary",
    "parameter_counts",
    "pin_base",
    "require_loss_head",
]
