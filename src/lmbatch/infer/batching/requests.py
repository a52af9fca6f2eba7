"""What a caller asks of the queue, and what comes back. Plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lmbatch.config import GenerateConfig
from lmbatch.errors import ConfigError

Finish = Literal["stop", "length"]
"""stop: the model ended the document, or a stop string came; length: as many tokens as were allowed."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One prompt, to be continued ``samples`` times.

    ``settings`` are this request's own, its seed included: sample ``i`` draws from (seed, i) and from nothing else.
    A text ends before the first of the strings in ``stop``. ``seconds``: how long the caller is willing to wait, the
    time in the queue included.
    """

    prompt: str
    settings: GenerateConfig
    samples: int = 1
    stop: tuple[str, ...] = ()
    seconds: float = 300.0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.seconds <= 0:
            raise ConfigError(f"samples = {self.samples}, seconds = {self.seconds}: both must be above 0")
        if "" in self.stop:
            raise ConfigError("stop: an empty string would end every text before it begins")


@dataclass(frozen=True, slots=True)
class Piece:
    """More of sample ``index``: ``text`` goes behind what came before, ``tokens`` were counted since the last piece.

    The last piece of a sample has ``finish``; its text may be empty.
    """

    index: int
    text: str
    tokens: int
    finish: Finish | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One finished continuation."""

    text: str
    tokens: int
    finish: Finish


@dataclass(frozen=True, slots=True)
class Reply:
    """All samples of a request, in order. ``dropped``: tokens that were cut off the prompt's beginning."""

    prompt: str
    prompt_tokens: int
    dropped: int
    samples: tuple[Sample, ...]

    @property
    def texts(self) -> list[str]:
        """Prompt and continuation of each sample."""
        return [self.prompt + sample.text for sample in self.samples]


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """``rows``: texts that grow side by side, which bounds the memory of the key/value cache; ``waiting``: requests
    that may wait for a place; ``gather_seconds``: how long an idle model waits for more to come along with a request.
    """

    rows: int = 32
    waiting: int = 128
    gather_seconds: float = 0.005

    def __post_init__(self) -> None:
        if self.rows < 1 or self.waiting < 1 or self.gather_seconds < 0:
            raise ConfigError(f"{self}: rows and waiting must be above 0, gather_seconds not below")
