"""`lmbatch data show`: which documents a step was trained on."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from lmbatch.cli.common import json_option, print_json, print_table
from lmbatch.config import TrainConfig, load_config
from lmbatch.errors import EXIT_FAILED, UsageError
from lmbatch.loader import Batch, ShownSample, TokenData, batches_digest, digest_text, open_train_data, show_samples
from lmbatch.loader.reader import gather
from lmbatch.train.metrics import read_metrics, training_rows

EPILOG = """\b
Examples:
  lmbatch data show runs/gpt2_zh --step 36000
  lmbatch data show runs/gpt2_zh --step 36000 --sample 3 --text
  lmbatch data show runs/gpt2_zh --step 36000 --check --json

It is worked out from the manifest and the order of samples, without a checkpoint; of the shards only the indexes and
the origins of their documents are read. --text and --check read the tokens too. --check compares them with what the
step's row in metrics.jsonl says was trained on; exit code 1 if they are others. A step that was not taken yet is shown
as it will be.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a run: its global sample numbers, and its row of metrics (None: not taken yet)."""

    number: int
    samples: range
    row: dict[str, Any] | None


@click.command(epilog=EPILOG)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--step", "number", type=click.IntRange(min=1), required=True, help="1 is the first.")
@click.option("--sample", "chosen", type=click.IntRange(min=0), help="Only this sample of the step; 0 is its first.")
@click.option("--store", help="Where the corpus lies now, if not where the run's config says.")
@click.option("--text", is_flag=True, help="Also the text of each document's part.")
@click.option("--check", is_flag=True, help="Compare the tokens with what the step's row of metrics says.")
@json_option
def show(run: Path, number: int, chosen: int | None, store: str | None, text: bool, check: bool, as_json: bool) -> None:
    """Say which documents the step of a run in the folder RUN was made of, sample by sample."""
    config = read_config(run, store)
    step = step_of(run, config, number)
    if chosen is not None and chosen >= len(step.samples):
        raise UsageError(f"--sample {chosen}: step {number} has samples 0 to {len(step.samples) - 1}")
    samples = step.samples if chosen is None else step.samples[chosen : chosen + 1]
    with open_train_data(config.loaded, seed=config.seed) as data:
        found = show_samples(data, samples)
        texts = texts_of(data, run, found) if text else None
        same = same_tokens(data, config, step) if check else None
    if as_json:
        print_json(as_dict(step, config, found, texts, same))
    else:
        print_step(run, step, found, texts, same)
    if same is False:
        sys.exit(EXIT_FAILED)


def read_config(run: Path, store: str | None) -> TrainConfig:
    """The run's resolved config. Raises UsageError for a folder that is no run."""
    path = run / "config.yaml"
    if not path.exists():
        raise UsageError(f"{run}: is no run folder: config.yaml is missing", remedy="name a run, by default runs/NAME")
    config = load_config(TrainConfig, path)
    if store is None:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"store": store})})


def step_of(run: Path, config: TrainConfig, number: int) -> Step:
    """The samples of a step: as its row says, for the batch size may have been another then; else by the config."""
    row = next((row for row in training_rows(read_metrics(run)) if row["step"] == number), None)
    size = config.batch.size
    return Step(number, range(*row["samples"]) if row else range((number - 1) * size, number * size), row)


def texts_of(data: TokenData, run: Path, found: list[ShownSample]) -> dict[int, list[str]]:
    """The text of each part, by the run's own tokenizer. Raises TokenizerError, ShardError."""
    from lmbatch.tokens import load_tokenizer

    backend = load_tokenizer(run / "tokenizer", data.manifest.tokenizer.eod_token).backend
    batch = read_batch(data, [sample.sample for sample in found])
    return {
        sample.sample: [
            backend.decode(row[part.at : part.at + part.end - part.first].tolist(), skip_special_tokens=False)
            for part in sample.parts
        ]
        for sample, row in zip(found, batch.tokens, strict=True)
    }


def read_batch(data: TokenData, samples: list[int]) -> Batch:
    """The tokens of samples, as the loader reads them."""
    order, numbers = data.order, np.asarray(samples, np.int64)
    tokens = np.empty((len(samples), order.sequence_length + 1), np.int64)
    lengths = gather(
        data.reader, order.locate_many(numbers), lambda row: order.locate(samples[row]), tokens, order.pad_id
    )
    return Batch(samples[0], tuple(samples), tokens, lengths)


def same_tokens(data: TokenData, config: TrainConfig, step: Step) -> bool:
    """Are the tokens of the whole step those that it was trained on? Raises UsageError for a step not taken yet."""
    if step.row is None:
        raise UsageError(f"--check: metrics.jsonl has no row of step {step.number}", remedy="leave --check out")
    batch = read_batch(data, list(step.samples))
    if config.objective is not None:
        from lmbatch.loader import Purpose
        from lmbatch.train.objective import open_objective  # where tokens are hidden, those are part of the digest

        prepare = open_objective(config).preparing(Purpose.TRAINING)
        batch = prepare(batch) if prepare is not None else batch
    return bool(digest_text(batches_digest([batch])) == step.row["data"])


def as_dict(
    step: Step, config: TrainConfig, found: list[ShownSample], texts: dict[int, list[str]] | None, same: bool | None
) -> dict[str, Any]:
    """What --json prints."""
    samples = [asdict(sample) for sample in found]
    for sample in samples if texts is not None else ():
        for part, text in zip(sample["parts"], (texts or {})[sample["sample"]], strict=True):
            part["text"] = text
    return {
        "step": step.number,
        "samples": [step.samples.start, step.samples.stop],
        "taken": step.row is not None,
        "seed": config.seed,
        "as_trained": same,
        "made_of": samples,
    }


def print_step(
    run: Path, step: Step, found: list[ShownSample], texts: dict[int, list[str]] | None, same: bool | None
) -> None:
    """The same for people."""
    not_taken = "" if step.row is not None else ", which was not taken yet"
    click.echo(f"step {step.number} of {run}{not_taken}: samples {step.samples.start} to {step.samples.stop - 1}")
    if same is not None:
        click.echo("its tokens are those that were trained on" if same else "its tokens are NOT those trained on")
    rows = []
    for sample in found:
        for number, part in enumerate(sample.parts):
            place = f"{part.at}–{part.at + part.end - part.first - 1}"
            piece = f"{part.first}–{part.end - 1} of {part.tokens}"
            row = [sample.sample if number == 0 else "", place, f"{part.path} at {part.position}", part.id or "", piece]
            rows.append(row + ([texts[sample.sample][number]] if texts is not None else []))
    headings = ["sample", "tokens", "document", "id", "of the document"] + (["text"] if texts is not None else [])
    print_table(headings, rows)
