"""From whatever a user calls a model to something that generates: an export, a run, or one of its checkpoints."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from transformers import PreTrainedTokenizerBase

from lmbatch.checkpoint.layout import PREFIX, is_attempt, step_of
from lmbatch.errors import CheckpointError, UsageError
from lmbatch.infer.folder import load_tokenizer, pick_device
from lmbatch.infer.generate import TextGenerator
from lmbatch.infer.run import Run, choose_checkpoint, copy_tokenizer, load_checkpoint, read_run

log = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_TRIES = 3


def load_for_generation(
    path: str | Path, *, device: str | None = None, dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
) -> TextGenerator:
    """Load an exported folder, the newest valid checkpoint of a run folder, or the checkpoint of one step of it.

    A run may be in training meanwhile; nothing is written into it. On a GPU if there is one, unless ``device`` says
    otherwise. Raises UsageError for a folder that is none of these and for a masked model, CheckpointError or
    TokenizerError for a damaged one.
    """
    folder = Path(path)
    place = run_of(folder)
    generator = TextGenerator.from_folder(folder, device="cpu") if place is None else _from_run(*place)
    generator.model.to(device=_device(device), dtype=_DTYPES[dtype])
    return generator


def run_of(folder: Path) -> tuple[Path, int | None] | None:
    """The run that a folder is, or is a checkpoint of, and that checkpoint's step. None for any other folder."""
    place = folder.absolute()
    if is_attempt(place.name):
        place = place.parent
    step = step_of(place.name)
    if step is not None and place.parent.name == PREFIX:
        return place.parent.parent, step
    if (place / PREFIX).is_dir() and (place / "config.yaml").exists():
        return folder, None
    return None


def _from_run(run_dir: Path, step: int | None) -> TextGenerator:
    run = read_run(run_dir)
    if run.special is not None:
        raise UsageError(
            f"{run_dir}: trains a masked language model, which fills masks and does not continue a text",
            remedy=f"export it (lmbatch export {run_dir} --out FOLDER) and use `lmbatch fill-mask`",
        )
    return TextGenerator(_load(run, step), _tokenizer(run), context=run.context)


def _load(run: Run, step: int | None) -> Any:
    """A run that goes on removes its older checkpoints, perhaps the one that is just being read: then take the next."""
    for left in reversed(range(_TRIES)):
        checkpoint = choose_checkpoint(run, step)
        try:
            model = load_checkpoint(run, checkpoint)
        except CheckpointError:
            if checkpoint.folder.exists() or not left:
                raise
            continue
        log.info("%s: step %d", run.folder, checkpoint.step)
        return model
    raise AssertionError("the last try returns or raises")


def _tokenizer(run: Run) -> PreTrainedTokenizerBase:
    with TemporaryDirectory() as folder:
        copy_tokenizer(run, Path(folder))
        return load_tokenizer(Path(folder))


def _device(name: str | None) -> torch.device:
    try:
        device = pick_device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise UsageError(f"--device {name}: {str(error).splitlines()[0]}", remedy="use cpu, or cuda:0") from error
    return device
