"""SwanLab, https://docs.swanlab.cn."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmbatch.config import SwanlabConfig
from lmbatch.errors import UsageError
from lmbatch.train.tracking.courier import Tracker


class SwanLab:
    """A :class:`~lmbatch.train.tracking.courier.Tracker`."""

    def __init__(self, run: Any, text: Any) -> None:
        self._run, self._text = run, text

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One chart each."""
        self._run.log(dict(values), step=step)

    def texts(self, texts: Mapping[str, str], step: int) -> None:
        """One panel; a text's caption is its prompt."""
        self._run.log({"samples": [self._text(text, caption=prompt) for prompt, text in texts.items()]}, step=step)

    def flush(self) -> None:
        """The library has no such call: what it holds in memory is lost if the process is killed."""

    def close(self) -> None:
        """Write the rest, or send it."""
        self._run.finish()


def open_swanlab(
    config: SwanlabConfig, folder: Path, run_id: str, name: str, shown: dict[str, Any], *, machine: bool
) -> Tracker:
    """Start the run, or go on with it: each attempt writes a folder of its own under the same id.

    Raises UsageError for what is missing here, and whatever the library raises.
    """
    import swanlab

    _check(config)
    folder.mkdir(parents=True, exist_ok=True)
    kind = swanlab.Settings
    settings = kind(
        interactive=False,
        terminal=kind.Terminal(proxy_type="none"),
        probe=kind.Probe(hardware=machine, monitor=machine, runtime=False, requirements=False, git=False),
    )
    run = swanlab.init(
        mode="online" if config.mode == "cloud" else config.mode, log_dir=str(folder), settings=settings,
        workspace=config.workspace, project=config.project, name=name, id=run_id, resume="allow", config=shown,
    )  # fmt: skip
    return SwanLab(run, swanlab.Text)


def _check(config: SwanlabConfig) -> None:
    """What the library would ask the terminal for, or fail at quietly."""
    if config.mode == "cloud" and not os.environ.get("SWANLAB_API_KEY"):
        raise UsageError("tracking.swanlab.mode is cloud", remedy="export SWANLAB_API_KEY")
    if config.mode == "local" and importlib.util.find_spec("swanboard") is None:
        raise UsageError("tracking.swanlab.mode is local", remedy="pip install 'swanlab[dashboard]'")
