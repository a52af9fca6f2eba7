"""What a run's objective asks of its data, its model and its prompts.

::

    TrainConfig.objective, the manifest's tokenizer ──open_objective──▶ Objective
        None      samples as they are, a causal model; with data.document_attention their documents kept apart
        masked    samples one token shorter, for the first token that goes before them; batches masked; a masked model
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lmbatch.config import DataConfig, TrainConfig
from lmbatch.errors import ConfigError
from lmbatch.loader import Apart, Batch, Masking, Purpose, read_manifest
from lmbatch.model import MaskedIds
from lmbatch.store import TOKENIZER_PREFIX, Manifest, SpecialTokens, Store, open_store, parse_special_tokens


@dataclass(frozen=True, slots=True)
class Objective:
    """``data`` is what the loader is opened with; ``special`` is there for a masked objective only, ``apart`` where
    the documents of a sample shall not see each other."""

    config: TrainConfig
    data: DataConfig
    special: SpecialTokens | None
    apart: Apart | None = None

    @property
    def model_ids(self) -> MaskedIds | None:
        """What makes the model a masked one."""
        return None if self.special is None else MaskedIds(self.special.first_id, self.special.pad_id)

    def preparing(self, purpose: Purpose) -> Callable[[Batch], Batch] | None:
        """What is done to each batch, if anything."""
        if self.special is None or self.config.objective is None:
            return self.apart
        return Masking(self.config.objective, self.special, seed=self.config.seed, purpose=purpose)


def open_objective(config: TrainConfig) -> Objective:
    """Reads the tokenizer's files where a masked objective needs them.

    Raises ConfigError for examples that leave no room for the first token, for prompts of sample texts without a
    mask, and for documents that shall be kept apart where they are not packed; TokenizerError for a tokenizer that
    lacks a special token; what reading the manifest raises.
    """
    if config.objective is None and not config.data.document_attention:
        return Objective(config, config.data, None)
    store = open_store(config.data.store)
    manifest = read_manifest(store, config.data.digest)
    if config.objective is None:
        return Objective(config, config.data, None, _apart(manifest))
    special = read_special_tokens(store, manifest)
    _check_room(manifest, config.data.sequence_length)
    for prompt in config.samples.prompts:
        if special.mask not in prompt:
            raise ConfigError(
                f"samples.prompts: {prompt!r} holds no {special.mask}, so a masked language model has nothing to say",
                remedy=f"write {special.mask} where it shall say something",
            )
    return Objective(config, config.loaded, special)


def read_special_tokens(store: Store, manifest: Manifest) -> SpecialTokens:
    """The special tokens of the tokenizer that lies beside a manifest. Raises TokenizerError if one is missing."""
    names = {entry.key.removeprefix(TOKENIZER_PREFIX): entry.key for entry in manifest.tokenizer.files}
    settings = names.get("tokenizer_config.json")
    key = names.get("tokenizer.json", f"{TOKENIZER_PREFIX}tokenizer.json")
    return parse_special_tokens(
        store.read(key),
        store.read(settings) if settings is not None else None,
        eod_id=manifest.tokenizer.eod_id,
        size=manifest.tokenizer.size,
        where=store.where(key),
    )


def _apart(manifest: Manifest) -> Apart:
    if manifest.chunking is not None and not manifest.chunking.packs:
        raise ConfigError(
            f"data.document_attention: the corpus was cut (chunking.mode = {manifest.chunking.mode}), so that every "
            "example is of one document already",
            remedy="leave data.document_attention out, or preprocess packed or with best_fit",
        )
    return Apart(manifest.tokenizer.eod_id)


def _check_room(manifest: Manifest, sequence_length: int) -> None:
    chunking = manifest.chunking
    if chunking is not None and chunking.most + 1 > sequence_length:
        raise ConfigError(
            f"the corpus was cut into examples of up to {chunking.most} tokens (chunking.length), {chunking.most + 1} "
            f"with the first token that goes before them, but data.sequence_length is {sequence_length}",
            remedy=f"set data.sequence_length to {chunking.most + 1} or more, or preprocess with a smaller "
            "chunking.length",
        )
