"""The config of the engine: where and how the steps of a run are computed, never what they come to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lmbatch.config.base import Section


class EngineConfig(Section):
    """How the model and its optimizer are spread over the processes. A run may be resumed under another engine."""

    name: Literal["plain", "deepspeed"] = Field(
        "plain", description="plain: every process holds everything (one process, or data parallelism); deepspeed: "
        "DeepSpeed divides it up by `zero_stage`."
    )  # fmt: skip
    zero_stage: int = Field(
        2, ge=0, le=3, description="What the processes share out (deepspeed only): 0 nothing, 1 the optimizer's "
        "state, 2 the gradients too, 3 the weights too."
    )  # fmt: skip
    offload_optimizer: Literal["none", "cpu"] = Field(
        "none", description="cpu: the optimizer's state and its step are on the host (deepspeed, stages 1 to 3)."
    )
    overlap_comm: bool = Field(
        True, description="Reduce gradients while the backward pass goes on (GPUs, stages 1 to 3)."
    )
    bucket_elements: int = Field(
        50_000_000, gt=0, description="Gradients that are reduced at once (deepspeed); sizes of stage 3 follow from it."
    )

    @model_validator(mode="after")
    def _can_offload(self) -> EngineConfig:
        if self.offload_optimizer != "none" and (self.name != "deepspeed" or self.zero_stage == 0):
            raise ValueError("offload_optimizer needs `name: deepspeed` and a zero_stage of 1, 2 or 3")
        return self

    @property
    def label(self) -> str:
        """What checkpoints and logs call it: ``plain`` or ``deepspeed zero 2``, with ``, optimizer on the CPU``."""
        if self.name == "plain":
            return self.name
        where = ", optimizer on the CPU" if self.offload_optimizer == "cpu" else ""
        return f"deepspeed zero {self.zero_stage}{where}"
