"""From a config and a place to the prediction of its run. No torch, unless a model has to be built to be counted.

::

    TrainConfig ─┬─ manifest, a flag or a published run ──▶ vocabulary, tokens ──▶ steps
                 ├─ known_shape, or the model on the meta device ──▶ ModelShape
                 └─ engine, batch, precision ──▶ Setting              all ──▶ predict ──▶ plan.json in the run folder
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from lmbatch.config import ModelConfig, TrainConfig, fingerprint
from lmbatch.errors import ConfigError, StoreError, UsageError
from lmbatch.estimate.memory import Setting
from lmbatch.estimate.prediction import Place, Prediction, Rates, Work, predict
from lmbatch.estimate.published import Published
from lmbatch.estimate.shape import KNOWN_TYPES, ModelShape, known_shape, padded_rows
from lmbatch.loader import read_manifest, samples_of
from lmbatch.store import Manifest, open_store
from lmbatch.train.records import replace_file
from lmbatch.train.schedule import total_steps

PLAN_FILE = "plan.json"
_PAD_ID = 1  # of a masked model whose tokenizer is not at hand: it moves the positions of some types


@dataclass(frozen=True)
class Corpus:
    """What a plan has to know of the data: ``source`` says from where; ``tokens`` of one epoch, None if not known."""

    vocabulary: int
    tokens: int | None
    samples: int | None
    source: str


def corpus_of(
    config: TrainConfig, *, tokens: int | None, vocabulary: int | None, published: Published | None
) -> Corpus:
    """From the manifest if the store can be read, else from what was given, else from the published run.

    Raises UsageError where none of them tells the vocabulary.
    """
    manifest = None if tokens is not None and vocabulary is not None else _manifest(config)
    length = config.data.sequence_length - (config.objective is not None)
    if manifest is not None:
        samples = samples_of(manifest, "train", length) if tokens is None else tokens // length
        found = manifest.tokens("train") if tokens is None else tokens
        return Corpus(vocabulary or manifest.tokenizer.size, found, samples, f"the manifest of {config.data.store}")
    vocabulary = vocabulary or (published.vocabulary if published else None)
    if vocabulary is None:
        raise UsageError(
            f"{config.data.store}: no manifest can be read there, so the vocabulary is not known",
            remedy="preprocess the corpus first, or give --vocab and --tokens",
        )
    if tokens is None:
        source = "no manifest yet" if published is None else "no manifest yet; length as published"
        return Corpus(vocabulary, None, None, source)
    return Corpus(vocabulary, tokens, tokens // length, "what was given")


def work_of(config: TrainConfig, corpus: Corpus, published: Published | None) -> Work:
    """The length of the run. Raises UsageError where ``epochs`` are asked for and nobody knows their length."""
    if config.steps is None and corpus.samples is None:
        if published is None:
            raise UsageError(
                f"epochs: {config.epochs} of a corpus whose tokens are not known",
                remedy="give --tokens (such as 1.5G), or preprocess the corpus first",
            )
        return Work(published.steps, config.batch.size)
    return Work(total_steps(config, corpus.samples or 0), config.batch.size, corpus.tokens)


def shape_of_config(config: TrainConfig, vocabulary: int, compute: int) -> ModelShape:
    """By arithmetic for the common types, else from the model on the meta device.

    Raises UsageError for another type where torch is not installed, ConfigError for a base that cannot be read.
    """
    model, sequence = _padded(_with_base(config.model), vocabulary), config.data.sequence_length
    shape = known_shape(model.type, model.config, vocabulary=vocabulary, sequence=sequence)
    if shape is not None:
        return shape
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        raise UsageError(
            f"model.type `{model.type}` is none of {', '.join(KNOWN_TYPES)}, and to count others it must be built",
            remedy="pip install 'lmbatch[train]' here, or plan on a machine that has it",
        )
    from lmbatch.model import MaskedIds
    from lmbatch.model.size import planned_shape

    masked = None if config.objective is None else MaskedIds(0, _PAD_ID)
    return planned_shape(model, vocabulary=vocabulary, sequence=sequence, masked=masked, compute=compute)


def setting_of(config: TrainConfig, *, world: int, precision: str, on_gpu: bool) -> Setting:
    """How the run is trained, as far as memory is concerned."""
    return Setting(
        sequence=config.data.sequence_length, micro=config.batch.micro, world=world,
        compute=4 if precision == "fp32" else 2, on_gpu=on_gpu, engine=config.engine,
        checkpointing=config.compute.activation_checkpointing, chunk=config.compute.loss_chunk_tokens,
        fused=config.compute.fused_optimizer, eager=config.compute.attention == "eager",
        apart=bool(config.data.document_attention),
        masked=None if config.objective is None else config.objective.mask_share,
    )  # fmt: skip


def prediction_of(
    config: TrainConfig, shape: ModelShape, setting: Setting, work: Work, place: Place, rates: Rates, *, precision: str
) -> Prediction:
    """What the run is said to take."""
    return predict(
        shape, setting, work, place, rates, config.save, config=fingerprint(config), precision=precision,
        asynchronous=config.save.asynchronous,
    )  # fmt: skip


def keep_prediction(run: Path, prediction: Prediction) -> None:
    """Write plan.json into a run's folder, atomically."""
    run.mkdir(parents=True, exist_ok=True)
    replace_file(run / PLAN_FILE, prediction.model_dump_json(indent=1).encode() + b"\n")


def read_prediction(run: Path) -> Prediction | None:
    """The prediction of a run; None if there is none, or one that this version cannot read."""
    try:
        return Prediction.model_validate_json((run / PLAN_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def _manifest(config: TrainConfig) -> Manifest | None:
    try:
        return read_manifest(open_store(config.data.store), config.data.digest)
    except (ConfigError, StoreError):
        return None


def _padded(model: ModelConfig, vocabulary: int) -> ModelConfig:
    """The tables with the rows that ``pad_vocab_to_multiple`` adds."""
    rows = padded_rows(int(model.config.get("vocab_size", vocabulary)), model.pad_vocab_to_multiple)
    settings = {**model.config, "vocab_size": rows}
    return model.model_copy(update={"config": settings, "pad_vocab_to_multiple": None})


def _with_base(model: ModelConfig) -> ModelConfig:
    """A model that begins with somebody's weights has the settings of their folder."""
    if model.base is None:
        return model
    path = Path(model.base) / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: the settings of model.base cannot be read: {error}") from error
    return model.model_copy(update={"type": settings.get("model_type", model.type), "config": settings | model.config})
