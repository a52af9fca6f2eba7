"""Where a run goes on: the newest valid checkpoint, if it belongs to this config and this corpus."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lmbatch.checkpoint import CheckpointFacts, Checkpoints, load_training_state
from lmbatch.checkpoint.checkpoints import Checkpoint
from lmbatch.checkpoint.layout import receipt_key
from lmbatch.config import TrainConfig, differences, identity
from lmbatch.errors import ResumeError
from lmbatch.loader import LoaderState
from lmbatch.store.manifest import Manifest

log = logging.getLogger(__name__)


def config_identity(config: TrainConfig) -> dict[str, Any]:
    """What decides the numbers of a run, as it is stored with each checkpoint.

    The pinned digest is left out: the manifest's own digest is compared, whether the config pins it or not.
    """
    values = identity(config)
    values["data"].pop("digest", None)
    return values


def choose_checkpoint(
    checkpoints: Checkpoints, config: TrainConfig, manifest: Manifest, precision: str
) -> Checkpoint | None:
    """The checkpoint to go on from; None for a run that has none yet.

    Newer ones that are damaged are logged and set aside. Raises ResumeError if there are only damaged ones (starting
    again at step 0 without a word would hide the loss), if a newer one is in a format that only a later lmbatch reads
    (its step could not be saved again), or if the newest valid one is of another corpus or config.
    The chosen one's copy in the mirror is made up for in the background, should it be missing.
    """
    found, refusals = checkpoints.newest_valid()
    for refusal in refusals:
        log.warning("checkpoint passed over: %s", refusal)
    newer = [refusal for refusal in refusals if refusal.kind == "newer"]
    if newer:
        raise ResumeError(
            "a newer lmbatch has gone on with this run: "
            + "; ".join(f"{refusal.place}/{receipt_key(refusal.step)}: {refusal.reason}" for refusal in newer),
            remedy="go on with that version; or, to take those steps again with this one, move their folders away",
        )
    lost = [refusal for refusal in refusals if refusal.kind != "torn"]
    if found is None and lost:
        raise ResumeError(
            "no checkpoint of this run is valid: " + "; ".join(str(refusal) for refusal in lost),
            remedy="restore one of them; or, to train from the beginning, move `checkpoints` away in "
            + " and in ".join(sorted({refusal.place for refusal in lost})),
        )
    if found is not None:
        check_same_run(found.facts, config, manifest, precision)
    for path in checkpoints.retire(refusals):
        log.warning("its receipt is set aside as %s", path)
    if found is not None:
        checkpoints.copy_if_missing(found.step)
    return found


def check_same_run(facts: CheckpointFacts, config: TrainConfig, manifest: Manifest, precision: str) -> None:
    """Raises ResumeError if the checkpoint was trained on other data, or with settings that give other numbers.

    ``run.accept_changes`` lets changed settings pass, never another corpus.
    """
    if facts.manifest_digest != manifest.digest:
        raise ResumeError(
            f"step {facts.step} was trained on the corpus {facts.manifest_digest}, but {config.data.store} now holds "
            f"{manifest.digest}",
            remedy="point data.store at the corpus that the run began with, or give the run another name",
        )
    check_loader(facts)
    old = {**facts.config_identity, "(precision)": facts.precision}
    changes = differences(old, {**config_identity(config), "(precision)": precision})
    if changes and not config.run.accept_changes:
        raise ResumeError(
            f"step {facts.step} was trained with other settings: {'; '.join(changes)}",
            remedy="set them back, give the run another name, or accept the change: --set run.accept_changes=true",
        )
    for change in changes:
        log.warning("accepted: from step %d on, %s", facts.step, change)


def check_loader(facts: CheckpointFacts) -> None:
    """Raises ResumeError if the loader's state names another place in the data than the checkpoint itself.

    They are written from different variables: where they part, samples would be repeated or left out without a word.
    """
    if not facts.loader:
        return
    state = LoaderState.from_dict(facts.loader)
    seed = facts.config_identity.get("seed", state.seed)
    if state != LoaderState(facts.manifest_digest, seed, facts.samples_consumed):
        raise ResumeError(
            f"step {facts.step} contradicts itself: after {facts.samples_consumed} samples of {facts.manifest_digest} "
            f"with seed {seed}, the loader's state is {facts.loader}",
            remedy="resume from another checkpoint (set this one's receipt.json aside), and report this",
        )


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any) -> None:
    """Put a checkpoint's state into the model and the optimizer, keeping the settings of the present config."""
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    load_training_state(folder, model=model, optimizer=optimizer, scaler=scaler)
    for group, setting in zip(optimizer.param_groups, settings, strict=True):
        group.update(setting)
