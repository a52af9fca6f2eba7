"""The run's records on a node that has lost its disk, or never had this run on it."""

from __future__ import annotations

import logging

from lmbatch.checkpoint import records
from lmbatch.checkpoint.behind import Behind
from lmbatch.checkpoint.layout import receipt_key
from lmbatch.config import TrainConfig
from lmbatch.store import Store
from lmbatch.train.attempts import ATTEMPTS_FILE
from lmbatch.train.folder import RunFolder, open_mirror

log = logging.getLogger(__name__)

# After a stop the node may be taken away at any moment.
PATIENCE_SECONDS = 20.0


def restore_records(config: TrainConfig, folder: RunFolder) -> None:
    """Fill a run folder without a ledger from the mirror: its curve, its ledger, its id with the trackers.

    Without them the guards would begin with an empty window and the curve with the resume. To be called under the
    run's lock, before anything is written. Raises StoreError if the mirror cannot be read.
    """
    if (folder.path / ATTEMPTS_FILE).exists():
        return
    mirror = open_mirror(config)
    found = records.pull(mirror, folder.path) if mirror is not None else None
    if found is not None and mirror is not None:
        log.warning("%s was empty: the records up to step %d came back from %s", folder.path, found.step, mirror.uri)


def keep_last_records(config: TrainConfig, folder: RunFolder, step: int | None) -> None:
    """Copy the records once more, now that the ledger says how the attempt ended; a failure is only told.

    Nothing is done if the checkpoint of ``step``, the last one saved, is not in the mirror.
    """
    mirror = open_mirror(config)
    if mirror is None or step is None:
        return
    behind = Behind("last-records")
    behind.start(lambda: _push(mirror, folder, step))
    if not behind.wait(PATIENCE_SECONDS):
        log.warning("%s: the copy of the last records is given up after %.0f s", mirror.uri, PATIENCE_SECONDS)
    if (error := behind.take_error()) is not None:
        log.warning("%s: the last records were not copied here: %s", mirror.uri, error)


def _push(mirror: Store, folder: RunFolder, step: int) -> None:
    if mirror.exists(receipt_key(step)):
        records.push(mirror, folder.path, step)
