"""The config of the step: by which kernels, and with how much memory, the same numbers are computed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lmbatch.config.base import Section


class ComputeConfig(Section):
    """How a step is computed. A run may be resumed under other settings; numbers change by rounding alone."""

    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        "auto", description="auto: what transformers takes for the model type; eager: plain matrices; sdpa: torch's "
        "fused kernels; flash_attention_2: the package flash-attn, on a GPU in bf16 or fp16."
    )  # fmt: skip
    compile: bool = Field(
        False, description="torch.compile of the steps (engine plain); it needs a C++ compiler. Evaluation and sample "
        "texts are not compiled."
    )  # fmt: skip
    fused_optimizer: bool = Field(
        False, description="AdamW in one kernel. With the plain engine and guards that only stop, figures are then "
        "fetched one step behind, and a stop is honoured up to one step later."
    )  # fmt: skip
    loss_chunk_tokens: int = Field(
        0, ge=0, description="The output projection and its loss are computed for so many tokens at a time, so that "
        "logits of the whole batch never exist; 0: all at once."
    )  # fmt: skip
    activation_checkpointing: bool = Field(
        False, description="Forget what is inside a layer and compute it again in the backward pass: less memory, "
        "about a third more work."
    )  # fmt: skip
