"""TensorBoard: event files in the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """A :class:`~lmbatch.train.tracking.courier.Tracker`."""

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One scalar each."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def texts(self, texts: Mapping[str, str], step: int) -> None:
        """One text each, under its prompt."""
        for prompt, text in texts.items():
            self._writer.add_text(f"samples/{prompt}", text, step)

    def flush(self) -> None:
        """Write what is buffered: the library does so every two minutes."""
        self._writer.flush()

    def close(self) -> None:
        """Write the rest."""
        self._writer.close()


def open_tensorboard(folder: Path, step: int) -> TensorBoard:
    """Events go on after ``step``; those of later steps, which a dead attempt wrote, are purged."""
    from torch.utils.tensorboard import SummaryWriter

    arguments: dict[str, Any] = {"purge_step": step + 1} if step else {}
    return TensorBoard(SummaryWriter(str(folder), **arguments))
