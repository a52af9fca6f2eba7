"""The config of the trackers: services that draw a run's curves. None of its keys is a secret."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lmbatch.config.base import Section

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class SwanlabConfig(Section):
    """SwanLab. The key of `cloud` comes from SWANLAB_API_KEY in the environment, never from here."""

    mode: Literal["offline", "local", "cloud"] = Field(
        "offline", description="offline: files for `swanlab sync`; local: files for `swanlab watch` (needs "
        "swanlab[dashboard]); cloud: sent while training."
    )  # fmt: skip
    project: str = Field("lmbatch", pattern=_NAME, description="Project that the run is listed under.")
    workspace: str | None = Field(None, description="Workspace (person or organisation); default: that of the key.")


class WandbConfig(Section):
    """Weights & Biases. The key of `online` comes from WANDB_API_KEY in the environment, never from here."""

    mode: Literal["offline", "online"] = Field(
        "offline", description="offline: files for `wandb sync`; online: sent while training."
    )
    project: str = Field("lmbatch", pattern=_NAME, description="Project that the run is listed under.")
    entity: str | None = Field(None, description="Person or team; default: that of the key.")


class TrackingConfig(Section):
    """Where curves go besides TensorBoard. A tracker that fails is given up with one warning; training goes on."""

    swanlab: SwanlabConfig | None = Field(None, description="SwanLab; null: not used.")
    wandb: WandbConfig | None = Field(None, description="Weights & Biases; null: not used.")
    machine: bool = Field(False, description="Let them measure this machine's load as well.")
    close_seconds: float = Field(
        5, ge=0, le=9, description="How long the end of an attempt, a preemption included, waits for all trackers "
        "together. A requeued attempt waits 10 s for this one to let go of the run."
    )  # fmt: skip
