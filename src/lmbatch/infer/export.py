"""A run's checkpoint as a Hugging Face folder that needs no lmbatch to load."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from lmbatch.checkpoint import Checkpoint, Checkpoints
from lmbatch.checkpoint.files import disk_errors, files_under, sync, sync_folders
from lmbatch.checkpoint.state import load_model_weights
from lmbatch.config import TrainConfig, load_config
from lmbatch.errors import CheckpointError, TokenizerError, UsageError
from lmbatch.infer.card import model_card
from lmbatch.infer.folder import load_tokenizer
from lmbatch.model import MaskedIds, build_model
from lmbatch.store import (
    TOKENIZER_PREFIX,
    LocalStore,
    Manifest,
    SpecialTokens,
    parse_manifest,
    parse_special_tokens,
)

log = logging.getLogger(__name__)

_RUN_FILES = ("config.yaml", "manifest.json", "tokenizer")
_CARD = "README.md"
# What transformers notes about the machine that a tokenizer was made on.
_MACHINE_KEYS = ("name_or_path", "_name_or_path", "tokenizer_file", "vocab_file", "cache_dir", "local_files_only")


def export_model(run_dir: Path, out: Path, *, step: int | None = None) -> Path:
    """Write the newest valid checkpoint (or the one of ``step``) of a run into the folder ``out``; gives ``out``.

    An earlier export in ``out`` is replaced in one move; another folder with something in it is refused. Raises
    UsageError for a folder that is no run, CheckpointError if no checkpoint is valid or it does not fit the config.
    """
    run_dir, out = Path(run_dir), Path(out)
    config, manifest = _read_run(run_dir)
    special = None if config.objective is None else _special_tokens(run_dir / "tokenizer", manifest)
    _check_replaceable(out)
    checkpoint = _choose(run_dir, step)
    model = _load(config, manifest, checkpoint, special)
    with disk_errors(out, "exporting the model"), _appearing(out) as folder:
        model.save_pretrained(folder)
        roles = {"eos_token": manifest.tokenizer.eod_token}
        if special is not None:
            roles |= {"cls_token": special.first, "pad_token": special.pad, "mask_token": special.mask}
        _copy_tokenizer(run_dir / "tokenizer", folder, manifest, roles, context=config.data.sequence_length)
        card = model_card(config, manifest, checkpoint.facts, model, run_dir / "metrics.jsonl")
        (folder / _CARD).write_text(card, encoding="utf-8")
    log.info("%s: step %d of %s", out, checkpoint.step, run_dir)
    return out


def _read_run(run_dir: Path) -> tuple[TrainConfig, Manifest]:
    missing = [name for name in _RUN_FILES if not (run_dir / name).exists()]
    if missing:
        raise UsageError(
            f"{run_dir}: is no run folder: {', '.join(missing)} is missing",
            remedy="name the folder of a training run, by default runs/NAME",
        )
    path = run_dir / "manifest.json"
    return load_config(TrainConfig, run_dir / "config.yaml"), parse_manifest(path.read_bytes(), str(path))


def _choose(run_dir: Path, step: int | None) -> Checkpoint:
    checkpoints = Checkpoints(LocalStore(run_dir))
    if step is not None:
        return checkpoints.at(step)
    found, refusals = checkpoints.newest_valid()
    for refusal in refusals:
        log.warning("checkpoint passed over: %s", refusal)
    if found is None:
        why = "; ".join(str(refusal) for refusal in refusals) or "none was saved yet"
        raise CheckpointError(
            f"{run_dir}: there is no valid checkpoint to export: {why}", remedy="train first, or restore a checkpoint"
        )
    return found


def _load(
    config: TrainConfig, manifest: Manifest, checkpoint: Checkpoint, special: SpecialTokens | None
) -> PreTrainedModel:
    if checkpoint.facts.manifest_digest != manifest.digest:
        raise CheckpointError(
            f"{checkpoint.folder}: was trained on the corpus {checkpoint.facts.manifest_digest}, but the run folder "
            f"holds the manifest and tokenizer of {manifest.digest}",
            remedy="put back the run folder's own manifest.json and tokenizer/",
        )
    eod_id = manifest.tokenizer.eod_id
    model: Any = build_model(
        config.model,
        vocab_size=manifest.tokenizer.size,
        sequence_length=config.data.sequence_length,
        eod_id=eod_id,
        seed=config.seed,
        masked=None if special is None else MaskedIds(special.first_id, special.pad_id),
    )
    load_model_weights(checkpoint.folder, model)
    assert isinstance(model, PreTrainedModel)
    if special is None:
        _let_it_generate(model, eod_id)
    return model


def _special_tokens(folder: Path, manifest: Manifest) -> SpecialTokens:
    settings = folder / "tokenizer_config.json"
    return parse_special_tokens(
        (folder / "tokenizer.json").read_bytes(),
        settings.read_bytes() if settings.exists() else None,
        eod_id=manifest.tokenizer.eod_id,
        size=manifest.tokenizer.size,
        where=str(folder),
    )


def _let_it_generate(model: Any, eod_id: int) -> None:
    # Training switches the cache off; who generates wants it.
    model.config.use_cache = True
    model.config.bos_token_id = model.config.eos_token_id = eod_id
    settings: Any = GenerationConfig
    model.generation_config = settings(bos_token_id=eod_id, eos_token_id=eod_id, pad_token_id=eod_id)


def _copy_tokenizer(source: Path, folder: Path, manifest: Manifest, roles: dict[str, str], *, context: int) -> None:
    known = {entry.key.removeprefix(TOKENIZER_PREFIX): entry.sha256 for entry in manifest.tokenizer.files}
    for path in files_under(source):
        name = path.relative_to(source).as_posix()
        data = path.read_bytes()
        if name in known and hashlib.sha256(data).hexdigest() != known[name]:
            raise TokenizerError(
                f"{path}: is not the file that the corpus was tokenized with (its sha256 differs from the manifest's)",
                remedy="copy tokenizer/ from the store of the corpus again",
            )
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    _write_tokenizer_config(folder, roles, context=context)
    load_tokenizer(folder)


def _write_tokenizer_config(folder: Path, roles: dict[str, str], *, context: int) -> None:
    """The tokenizer's own config, without paths of this machine, and with the length that the model was trained at."""
    path = folder / "tokenizer_config.json"
    values: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    kept = {key: value for key, value in values.items() if key not in _MACHINE_KEYS}
    if (folder / "tokenizer.json").exists():
        # Without a class, AutoTokenizer takes the one of the model's type, which may cut text in another way.
        kept.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    kept = roles | kept
    kept["model_max_length"] = context
    path.write_text(json.dumps(kept, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


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
