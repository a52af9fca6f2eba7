"""Weights & Biases, https://docs.wandb.ai."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lmbatch.config import WandbConfig
from lmbatch.errors import UsageError
from lmbatch.train.tracking.courier import Tracker

_STEP = "step"


class WeightsAndBiases:
    """A :class:`~lmbatch.train.tracking.courier.Tracker`.

    The step is a column of its own: the service's own counter refuses to go back, and an evaluation that is owed since
    before an interruption would be lost.
    """

    def __init__(self, library: Any, run: Any, held: ExitStack) -> None:
        self._library, self._run, self._held = library, run, held

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One row."""
        self._run.log({**values, _STEP: step})

    def texts(self, texts: Mapping[str, str], step: int) -> None:
        """One table."""
        rows = [[step, prompt, text] for prompt, text in texts.items()]
        table = self._library.Table(columns=["step", "prompt", "text"], data=rows)
        self._run.log({"samples": table, _STEP: step})

    def flush(self) -> None:
        """Nothing to do: what was logged is with the library's own process, which outlives this one."""

    def close(self) -> None:
        """Write the rest, or send it, and end that process."""
        with self._held:
            self._run.finish()
            self._library.teardown()


def open_wandb(
    config: WandbConfig, folder: Path, run_id: str, name: str, shown: dict[str, Any], *, machine: bool
) -> Tracker:
    """Start the run, or go on with it: each attempt writes a folder of its own under the same id.

    Raises UsageError for what is missing here, and whatever the library raises.
    """
    if config.mode == "online" and not os.environ.get("WANDB_API_KEY"):
        raise UsageError("tracking.wandb.mode is online", remedy="export WANDB_API_KEY")
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(_own_folders(folder / "cache"))
        import wandb

        run = wandb.init(
            mode=config.mode, dir=folder.parent, project=config.project, entity=config.entity, name=name, id=run_id,
            resume="allow" if config.mode == "online" else None, config=shown, settings=_settings(wandb, machine),
        )  # fmt: skip
        run.define_metric(_STEP, hidden=True)
        run.define_metric("*", step_metric=_STEP)
        return WeightsAndBiases(wandb, run, stack.pop_all())


def _settings(library: Any, machine: bool) -> Any:
    return library.Settings(
        console="off", silent=True, disable_git=True, disable_code=True, x_save_requirements=False,
        x_disable_meta=not machine, x_disable_machine_info=not machine, x_disable_stats=not machine,
    )  # fmt: skip


@contextmanager
def _own_folders(cache: Path) -> Iterator[None]:
    """Its logs and caches belong to the run as well: a home folder on a cluster may be small, or not writable.

    It asks for the variables whenever it writes, so they stand for as long as the run is open.
    """
    values = dict.fromkeys(("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"), str(cache))
    values["WANDB_ERROR_REPORTING"] = "false"
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
