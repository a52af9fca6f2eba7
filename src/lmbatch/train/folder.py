"""The run folder: what lies where, and the files that are written once at the start of an attempt."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmbatch.config import RunConfig, TrainConfig, dump_yaml
from lmbatch.errors import TokenizerError
from lmbatch.store import Store, open_store
from lmbatch.store.manifest import TOKENIZER_PREFIX, Manifest, to_json
from lmbatch.train.records import replace_file


@dataclass(frozen=True, slots=True)
class RunFolder:
    """``runs/NAME/``: config.yaml (resolved), manifest.json and tokenizer/ (copies), model.json, plan.json,
    checkpoints/, metrics.jsonl, attempts.jsonl, samples.jsonl, tensorboard/, tracking/, lock, and ``stop`` while it is
    asked for."""

    path: Path

    @classmethod
    def of(cls, run: RunConfig) -> RunFolder:
        """The folder that a config names."""
        return cls(Path(run.dir).resolve() / run.name)

    @property
    def stop(self) -> Path:
        """Its existence is a request to stop."""
        return self.path / "stop"

    @property
    def hanging(self) -> Path:
        """What processes that hung have written about themselves (train/watchdog.py)."""
        return self.path / "hang"

    @property
    def samples(self) -> Path:
        """Texts generated during training."""
        return self.path / "samples.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def tracking(self) -> Path:
        """The trackers' files, and the id that the run has with them."""
        return self.path / "tracking"

    @property
    def tokenizer(self) -> Path:
        """The copy of the corpus's tokenizer."""
        return self.path / "tokenizer"

    def write_facts(self, config: TrainConfig, manifest: Manifest, model: dict[str, Any]) -> None:
        """Write config.yaml, manifest.json and model.json, each atomically."""
        replace_file(self.path / "config.yaml", dump_yaml(config).encode())
        replace_file(self.path / "manifest.json", to_json(manifest))
        text = json.dumps(model, indent=1, ensure_ascii=False)
        replace_file(self.path / "model.json", text.encode() + b"\n")

    def copy_tokenizer(self, store: Store, manifest: Manifest) -> None:
        """Copy the tokenizer's files from the store. Raises TokenizerError for bytes that are not the manifest's."""
        self.tokenizer.mkdir(parents=True, exist_ok=True)
        for entry in manifest.tokenizer.files:
            data = store.read(entry.key)
            if hashlib.sha256(data).hexdigest() != entry.sha256:
                raise TokenizerError(
                    f"{store.uri}/{entry.key}: not the bytes that the manifest names (sha256 {entry.sha256[:12]}…)",
                    remedy="run `lmbatch verify` on the store",
                )
            target = self.tokenizer / entry.key.removeprefix(TOKENIZER_PREFIX)
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(target, data)


def open_mirror(config: TrainConfig) -> Store | None:
    """Where committed checkpoints and the run's records are copied to; None if the config names no store for them."""
    return open_store(f"{config.save.store.rstrip('/')}/{config.run.name}") if config.save.store else None


def check_tokenizer(config: TrainConfig, manifest: Manifest) -> None:
    """Raises TokenizerError if the config names another tokenizer than the one that wrote the shards."""
    if config.tokenizer is None:
        return
    from lmbatch.tokens import load_tokenizer

    found = load_tokenizer(config.tokenizer, manifest.tokenizer.eod_token).fingerprint
    if found != manifest.tokenizer.fingerprint:
        raise TokenizerError(
            f"{config.tokenizer}: this tokenizer is {found}; the shards were written with "
            f"{manifest.tokenizer.fingerprint}",
            remedy="leave `tokenizer` out to use the copy beside the manifest, or preprocess the corpus with this one",
        )
