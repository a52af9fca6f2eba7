"""A training run as who wants its model sees it: read only, and also while the run goes on."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from lmbatch.checkpoint import Checkpoint, Checkpoints
from lmbatch.checkpoint.files import files_under
from lmbatch.checkpoint.state import load_model_weights
from lmbatch.config import TrainConfig, load_config
from lmbatch.errors import CheckpointError, TokenizerError, UsageError
from lmbatch.infer.folder import load_tokenizer
from lmbatch.model import MaskedIds, build_model, cut_vocabulary
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
# What transformers notes about the machine that a tokenizer was made on.
_MACHINE_KEYS = ("name_or_path", "_name_or_path", "tokenizer_file", "vocab_file", "cache_dir", "local_files_only")


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder's config and manifest. ``special``: the special tokens of a masked model, None for a causal one."""

    folder: Path
    config: TrainConfig
    manifest: Manifest
    special: SpecialTokens | None

    @property
    def context(self) -> int:
        """Tokens that the model was trained to see at once."""
        return self.config.data.sequence_length


def read_run(run_dir: Path) -> Run:
    """Raises UsageError for a folder that is no run."""
    missing = [name for name in _RUN_FILES if not (run_dir / name).exists()]
    if missing:
        raise UsageError(
            f"{run_dir}: is no run folder: {', '.join(missing)} is missing",
            remedy="name the folder of a training run, by default runs/NAME",
        )
    path = run_dir / "manifest.json"
    config, manifest = load_config(TrainConfig, run_dir / "config.yaml"), parse_manifest(path.read_bytes(), str(path))
    special = None if config.objective is None else _special_tokens(run_dir / "tokenizer", manifest)
    return Run(run_dir, config, manifest, special)


def choose_checkpoint(run: Run, step: int | None = None) -> Checkpoint:
    """The newest valid checkpoint, or the one of ``step``. Raises CheckpointError if there is none."""
    checkpoints = Checkpoints(LocalStore(run.folder))
    if step is not None:
        return checkpoints.at(step)
    found, refusals = checkpoints.newest_valid()
    for refusal in refusals:
        log.warning("checkpoint passed over: %s", refusal)
    if found is None:
        why = "; ".join(str(refusal) for refusal in refusals) or "none was saved yet"
        raise CheckpointError(
            f"{run.folder}: there is no valid checkpoint: {why}", remedy="train first, or restore a checkpoint"
        )
    return found


def load_checkpoint(run: Run, checkpoint: Checkpoint) -> PreTrainedModel:
    """The model of a checkpoint, on the CPU. Raises CheckpointError if it does not fit the run's config or data."""
    config, manifest, special = run.config, run.manifest, run.special
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
    cut_vocabulary(model)
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


def copy_tokenizer(run: Run, folder: Path) -> None:
    """Write the run's tokenizer into ``folder``, as transformers loads it.

    Raises TokenizerError if it is not the one that the corpus was tokenized with, or cannot be loaded whole.
    """
    source = run.folder / "tokenizer"
    known = {entry.key.removeprefix(TOKENIZER_PREFIX): entry.sha256 for entry in run.manifest.tokenizer.files}
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
    _write_tokenizer_config(folder, _roles(run), context=run.context)
    load_tokenizer(folder)


def _roles(run: Run) -> dict[str, str]:
    eod = run.manifest.tokenizer.eod_token
    roles = {"eos_token": eod}
    if run.special is None:  # as GPT-2's own tokenizer has it; CTranslate2 wants a text for each of the three
        roles |= {"bos_token": eod, "unk_token": eod}
    else:
        roles |= {"cls_token": run.special.first, "pad_token": run.special.pad, "mask_token": run.special.mask}
    return roles


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
