"""The body of ``POST /v1/completions``: what of OpenAI's API is understood, and what is refused by name.

The API: https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from lmbatch.infer.http.bodies import Body

# Keys of OpenAI's that are taken only with a value that changes nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "logprobs": (None,),
    "suffix": (None, ""),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
}
_MAX_STOPS = 4


class CompletionBody(Body):
    """OpenAI's keys, and four of transformers'. What is left out is the service's own setting."""

    prompt: str | tuple[str, ...] = Field(description="A text, or several.")
    model: str | None = Field(None, description="The name that /v1/models gives.")
    max_tokens: int | None = Field(16, gt=0, description="New tokens at most, for each text.")
    n: int | None = Field(1, gt=0, description="Texts for each prompt.")
    temperature: float | None = Field(None, ge=0, le=100, allow_inf_nan=False, description="0: the likeliest token.")
    top_p: float | None = Field(None, gt=0, le=1, description="Only the smallest set with this probability.")
    stop: str | tuple[str, ...] | None = Field(None, description="Up to four strings that end a text.")
    seed: int | None = Field(None, ge=0, lt=2**63, description="Repeats the texts.")
    stream: bool | None = Field(False, description="Pieces as server-sent events.")
    stream_options: dict[str, bool] | None = Field(None, description="include_usage: counts at the end of a stream.")
    echo: bool | None = Field(False, description="Give the prompt back in front of each text.")
    user: str | None = Field(None, description="Not used.")
    best_of: int | None = Field(None, gt=0, description="Only with the value of n.")
    logprobs: Any = Field(None, description="Not supported.")
    suffix: Any = Field(None, description="Not supported.")
    logit_bias: Any = Field(None, description="Not supported.")
    presence_penalty: Any = Field(None, description="Not supported but for 0.")
    frequency_penalty: Any = Field(None, description="Not supported but for 0.")
    top_k: int | None = Field(None, ge=0, description="Only the k likeliest tokens; 0: all.")
    num_beams: int | None = Field(None, gt=0, le=16, description="Beam search; its pieces come all at the end.")
    no_repeat_ngram_size: int | None = Field(None, ge=0, description="No n-gram of this size twice.")
    repetition_penalty: float | None = Field(
        None, gt=0, le=100, allow_inf_nan=False, description="Above 1 makes seen tokens less likely."
    )

    @property
    def prompts(self) -> tuple[str, ...]:
        """One or several."""
        return (self.prompt,) if isinstance(self.prompt, str) else self.prompt

    @property
    def stops(self) -> tuple[str, ...]:
        """None, one or several."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()

    @field_validator("prompt", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        if isinstance(value, str):
            return value
        if not isinstance(value, (list, tuple)) or not value or not all(isinstance(part, str) for part in value):
            raise ValueError("must be a text or a list of texts; token ids are not supported")
        return tuple(value)

    @field_validator("stop", mode="before")
    @classmethod
    def _stop_strings(cls, value: Any) -> Any:
        texts = [value] if isinstance(value, str) else value
        if texts is None:
            return None
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) and text for text in texts):
            raise ValueError("must be a text that is not empty, or a list of such texts")
        if len(texts) > _MAX_STOPS:
            raise ValueError(f"at most {_MAX_STOPS} stop strings")
        return tuple(texts)

    @field_validator(*_NEUTRAL)
    @classmethod
    def _neutral(cls, value: Any, info: Any) -> Any:
        if value not in _NEUTRAL[info.field_name]:
            raise ValueError("not supported by this service")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> CompletionBody:
        if self.best_of not in (None, self.n):
            raise ValueError("best_of: only the value of n is supported")
        if unknown := set(self.stream_options or {}) - {"include_usage"}:
            raise ValueError(f"stream_options: unknown key {min(unknown)[:60]!r}; known: include_usage")
        if self.stream_options and not self.stream:
            raise ValueError("stream_options: only with stream")
        return self
