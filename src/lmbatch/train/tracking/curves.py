"""From the recorder's rows to every tracker that the config names."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial

from lmbatch.config import TrainConfig
from lmbatch.train.folder import RunFolder
from lmbatch.train.records import Record
from lmbatch.train.tracking.courier import Courier, Tracker
from lmbatch.train.tracking.identity import Identity, identify
from lmbatch.train.tracking.public import public_config

log = logging.getLogger(__name__)
_TRAIN = ("loss", "lr", "grad_norm", "tokens_per_second", "mfu")
_VALIDATION = ("loss", "perplexity", "bits_per_byte")


class Curves:
    """Hands rows to the trackers. ``step`` is where the attempt goes on; ``logged`` is the last step that an earlier
    attempt logged of each group (``train``, ``validation``, ``samples``), later than ``step`` where it died.

    Those steps are taken again and give the same figures, so a service that has them does not get them twice.
    TensorBoard does: it is told to forget what came after ``step``.
    """

    def __init__(self, folder: RunFolder, config: TrainConfig, *, step: int, logged: Mapping[str, int]) -> None:
        self._close_seconds = config.tracking.close_seconds
        self._couriers: list[tuple[Courier, Mapping[str, int]]] = []
        if config.tensorboard:
            self._start_tensorboard(folder, step)
        if config.tracking.swanlab is None and config.tracking.wandb is None:
            return
        try:
            identity = identify(folder.tracking, logged)
        except (OSError, ValueError) as error:
            log.warning("no tracker but TensorBoard is used, training goes on: %s: %s", folder.tracking, error)
            return
        self._start_services(folder, config, identity)

    def _start_tensorboard(self, folder: RunFolder, step: int) -> None:
        from lmbatch.train.tracking.tensorboard import open_tensorboard

        self._couriers.append((Courier("tensorboard", partial(open_tensorboard, folder.tensorboard, step)), {}))

    def _start_services(self, folder: RunFolder, config: TrainConfig, identity: Identity) -> None:
        shown, tracking = public_config(config), config.tracking
        if tracking.swanlab is not None:
            from lmbatch.train.tracking.swanlab import open_swanlab

            place = folder.tracking / "swanlab"
            opener = partial(open_swanlab, tracking.swanlab, place, identity.id, config.run.name, shown,
                             machine=tracking.machine)  # fmt: skip
            self._couriers.append((Courier("swanlab", opener), identity.sent_to(place)))
        if tracking.wandb is not None:
            from lmbatch.train.tracking.wandb import open_wandb

            place = folder.tracking / "wandb"
            open_it = partial(open_wandb, tracking.wandb, place, identity.id, config.run.name, shown,
                              machine=tracking.machine)  # fmt: skip
            self._couriers.append((Courier("wandb", open_it), identity.sent_to(place)))

    def train(self, row: Record) -> None:
        """A step is done."""
        self._scalars("train", _TRAIN, row)

    def evaluation(self, row: Record) -> None:
        """An evaluation is done."""
        self._scalars("validation", _VALIDATION, row)

    def samples(self, step: int, texts: Mapping[str, str]) -> None:
        """Texts were generated, by prompt."""
        self._send("samples", step, lambda tracker: tracker.texts(texts, step))

    def flush(self) -> None:
        """A checkpoint is about to be saved."""
        for courier, _ in self._couriers:
            courier.send(lambda tracker: tracker.flush())

    def close(self) -> None:
        """Let every tracker finish, for ``tracking.close_seconds`` in all."""
        deadline = time.monotonic() + self._close_seconds
        for courier, _ in self._couriers:
            courier.finish()
        for courier, _ in self._couriers:
            courier.join(deadline)

    def _scalars(self, group: str, names: tuple[str, ...], row: Record) -> None:
        values = {f"{group}/{name}": float(row[name]) for name in names if row[name] is not None}
        step = row["step"]
        self._send(group, step, lambda tracker: tracker.scalars(values, step))

    def _send(self, group: str, step: int, deliver: Callable[[Tracker], None]) -> None:
        for courier, sent in self._couriers:
            if step > sent.get(group, -1):
                courier.send(deliver)
