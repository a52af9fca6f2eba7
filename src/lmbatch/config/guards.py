"""The config of the guards: what happens to a step whose loss or gradient cannot be right."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lmbatch.config.base import Section, operational


class GuardsConfig(Section):
    """Steps that are not finite, or jump. Without the section: ``nonfinite: stop``, and nothing is called a jump."""

    nonfinite: Literal["stop", "skip"] = Field(
        "stop", description="A loss or a gradient norm that is NaN or infinite. stop: exit code 1, nothing changed; "
        "skip: the update is left out, the samples count as consumed."
    )  # fmt: skip
    max_skipped: int = operational(
        5, ge=1, description="So many steps in a row may be left out; the next one stops the run."
    )
    spike_factor: float | None = Field(
        None, gt=1, description="A loss above this many times the median of the window is a spike; null: none is."
    )
    grad_spike_factor: float | None = Field(
        None, gt=1, description="The same for the gradient norm before clipping; null: none is."
    )
    spike_window: int = Field(
        64, ge=1, description="The median is that of so many applied steps; until there are as many, nothing is a "
        "spike."
    )  # fmt: skip
    on_spike: Literal["warn", "skip", "stop"] = Field(
        "warn", description="warn: log it and apply the update; skip: leave the update out; stop: exit code 1, "
        "nothing changed."
    )  # fmt: skip

    @property
    def only_stop(self) -> bool:
        """Is a step that is not finite, and ends the run, all that they look for?"""
        return self.nonfinite == "stop" and self.spike_factor is None and self.grad_spike_factor is None

    @model_validator(mode="after")
    def _has_a_factor(self) -> GuardsConfig:
        if self.on_spike != "warn" and self.spike_factor is None and self.grad_spike_factor is None:
            raise ValueError("on_spike does nothing without spike_factor or grad_spike_factor")
        return self
