"""What others say of the same run: ``configs/published.yaml``, kept apart from the arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from lmbatch.config.base import Section
from lmbatch.config.load import build, read_layers
from lmbatch.estimate.devices import find_device
from lmbatch.estimate.shape import ModelShape

PUBLISHED_FILE = "published.yaml"


class Published(Section):
    """A published run: ``steps`` of ``batch`` samples of ``sequence`` tokens in ``hours`` on one ``device``."""

    what: str
    device: str
    precision: str
    hours: float = Field(gt=0)
    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    sequence: int = Field(gt=0)
    vocabulary: int = Field(gt=0)

    @property
    def tokens(self) -> int:
        """Tokens that it read."""
        return self.steps * self.batch * self.sequence


@dataclass(frozen=True)
class Beside:
    """A published run beside ours: its tokens per second and MFU (None: its device is in no table), and the hours that
    the same tokens take at our speed (None: not known)."""

    published: Published
    tokens_per_second: float
    mfu: float | None
    our_hours: float | None


def published_run(config: Path) -> Published | None:
    """What is published of a config file, if its folder or the one above has such a list that names it.

    Raises ConfigError for a list that cannot be read.
    """
    for folder in (config.resolve().parent, config.resolve().parent.parent):
        path = folder / PUBLISHED_FILE
        if path.is_file():
            found = read_layers(path).get(config.stem)
            return None if found is None else build(Published, found, f"{path}: {config.stem}")
    return None


def beside(published: Published, shape: ModelShape, speed: float | None) -> Beside:
    """Set it beside our ``speed`` in tokens per second."""
    theirs = published.tokens / (published.hours * 3600)
    device = find_device(published.device)
    peak = device.peak(published.precision) if device is not None else None
    mfu = None if peak is None else theirs * shape.flops_per_token(published.sequence) / peak
    return Beside(published, theirs, mfu, None if speed is None else published.tokens / speed / 3600)
