"""A run's checkpoint as a Hugging Face folder that needs no lmbatch to load."""

from __future__ import annotations

import logging
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmbatch.checkpoint.files import disk_errors, files_under, sync, sync_folders
from lmbatch.errors import UsageError
from lmbatch.infer.card import model_card
from lmbatch.infer.run import choose_checkpoint, copy_tokenizer, load_checkpoint, read_run

log = logging.getLogger(__name__)

_CARD = "README.md"


def export_model(run_dir: Path, out: Path, *, step: int | None = None) -> Path:
    """Write the newest valid checkpoint (or the one of ``step``) of a run into the folder ``out``; gives ``out``.

    An earlier export in ``out`` is replaced in one move; another folder with something in it is refused. Raises
    UsageError for a folder that is no run, CheckpointError if no checkpoint is valid or it does not fit the config.
    """
    run_dir, out = Path(run_dir), Path(out)
    run = read_run(run_dir)
    _check_replaceable(out)
    checkpoint = choose_checkpoint(run, step)
    model = load_checkpoint(run, checkpoint)
    with disk_errors(out, "exporting the model"), _appearing(out) as folder:
        model.save_pretrained(folder)
        copy_tokenizer(run, folder)
        card = model_card(run.config, run.manifest, checkpoint.facts, model, run_dir / "metrics.jsonl")
        (folder / _CARD).write_text(card, encoding="utf-8")
        _share(folder)
    log.info("%s: step %d of %s", out, checkpoint.step, run_dir)
    return out


def _share(folder: Path) -> None:
    """Let others read what they may read of the card: safetensors makes its files for their owner alone."""
    usual = stat.S_IMODE((folder / _CARD).stat().st_mode)
    for path in files_under(folder):
        path.chmod(usual)


def _check_replaceable(out: Path) -> None:
    if not out.exists() or (out.is_dir() and (_is_export(out) or not any(out.iterdir()))):
        return
    raise UsageError(f"{out}: exists and is no earlier export", remedy="name another folder, or remove this one")


def _is_export(folder: Path) -> bool:
    card = folder / _CARD
    return (folder / "config.json").exists() and card.exists() and "lmbatch" in card.read_text(encoding="utf-8")


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A sibling folder that takes the name ``out`` when it is complete and on the disk, and vanishes otherwise."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.tmp-{secrets.token_hex(4)}")
    folder.mkdir()
    try:
        yield folder
        for path in files_under(folder):
            sync(path)
        sync_folders(folder)
        _swap(folder, out)
        sync(out.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _swap(folder: Path, out: Path) -> None:
    if not out.exists():
        folder.rename(out)
        return
    old = folder.with_name(folder.name + ".old")
    out.rename(old)
    folder.rename(out)
    shutil.rmtree(old)
