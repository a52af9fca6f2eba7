"""The config of the HTTP service; `lmbatch serve` has an option for each key."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lmbatch.config.base import Bytes, Section


class ServeConfig(Section):
    """The HTTP service: where it listens, what it does where a request does not say, and what it refuses."""

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0: every one of this machine.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0: any free one, which is logged.")
    name: str | None = Field(None, min_length=1, description="Name of the model for clients; default: the folder's.")
    device: str | None = Field(None, description="cpu, cuda, cuda:1; default: a GPU if there is one.")
    dtype: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Precision of weights and arithmetic. fp32 alone gives a text that does not depend on what "
        "else is generated at the same time."
    )  # fmt: skip
    temperature: float = Field(0.8, ge=0, allow_inf_nan=False, description="Where a request names none; 0: greedy.")
    top_k: int = Field(50, ge=0, description="Where a request names none; 0: all tokens.")
    top_p: float = Field(1.0, gt=0, le=1, description="Where a request names none.")
    max_tokens: int = Field(1024, gt=0, description="New tokens that a request may ask for, for each text.")
    max_samples: int = Field(16, gt=0, description="Texts that a request may ask for.")
    max_body: Bytes = Field(64 * 1024, description="Bytes that a request may have.")
    max_seconds: float = Field(120, gt=0, allow_inf_nan=False, description="A request that takes longer is ended.")
    max_connections: int = Field(512, gt=0, description="Connections that may be open; more are answered with 503.")
    rows: int = Field(32, gt=0, description="Texts that grow side by side; bounds the memory.")
    waiting: int = Field(128, gt=0, description="Requests that may wait for a place; more are answered with 429.")
    grace: float = Field(30, ge=0, allow_inf_nan=False, description="Seconds that running requests have on SIGTERM.")

    @model_validator(mode="after")
    def _room_for_all_samples(self) -> ServeConfig:
        if self.max_samples > self.rows:
            raise ValueError(f"max_samples = {self.max_samples}, but only rows = {self.rows} texts grow side by side")
        return self
