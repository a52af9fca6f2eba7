"""Ways to generate that a user picks by name, and the check of what came from the page. Pure."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from typing import Any

from lmbatch.config import GenerateConfig
from lmbatch.config.load import build
from lmbatch.errors import ConfigError

NEW_TOKENS = 200
MOST_BEAMS = 10
_SEEDS = 2**31


@dataclass(frozen=True, slots=True)
class Preset:
    """Values of the controls that decide how the next token is chosen."""

    num_beams: int = 1
    early_stopping: bool = False
    no_repeat_ngram_size: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0


PRESETS = {
    # Of the walk-through that trains GPT-2 on 15 GB of Chinese: generate(num_beams=5, no_repeat_ngram_size=2,
    # early_stopping=True, max_length=200).
    "Beam search": Preset(num_beams=5, early_stopping=True, no_repeat_ngram_size=2),
    "Sampling": Preset(temperature=0.8, top_k=50),
    "Free sampling": Preset(temperature=1.0, top_p=0.95),
    "Likeliest": Preset(no_repeat_ngram_size=3),
}
FIRST = "Beam search"


def settings_from(values: dict[str, Any], *, new_tokens: int) -> GenerateConfig:
    """The controls' values as settings; a request that did not come from our page is checked here as well.

    ``new_tokens`` is the most that may be asked for. A seed that is None is drawn. Raises ConfigError.
    """
    plain = {name: _whole(name, value) for name, value in values.items()}
    if plain.get("seed") is None:
        plain["seed"] = secrets.randbelow(_SEEDS)
    settings = build(GenerateConfig, plain, "the settings")
    if settings.max_new_tokens > new_tokens or settings.num_beams > MOST_BEAMS:
        raise ConfigError(f"at most {new_tokens} new tokens and {MOST_BEAMS} beams may be asked for here")
    return settings


def _whole(name: str, value: Any) -> Any:
    """A slider's 5.0 is a 5; what is no number at all is left to the schema."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name}: not a number")
    return int(value) if isinstance(value, float) and value.is_integer() else value
