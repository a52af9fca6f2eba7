"""`lmbatch evaluate`: perplexity and bits per byte of a model, on a corpus or on text files; tasks of lm-eval."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmbatch.cli.common import json_option, print_json, print_table, progress_bar, quiet_transformers
from lmbatch.errors import TokenizerError, UsageError
from lmbatch.interchange.documents import whole_documents
from lmbatch.loader import read_manifest
from lmbatch.store import SPLITS, Manifest, Split, Store, open_store

if TYPE_CHECKING:
    from lmbatch.infer import TextGenerator
    from lmbatch.infer.scoring import Score, Scorer

EPILOG = """\b
Examples:
  lmbatch evaluate data/export/demo --store data/shards/demo
  lmbatch evaluate runs/NAME novel.txt news.txt --stride 128 --json
  lmbatch evaluate data/export/demo --lm-eval lambada_openai --limit 100
  lmbatch evaluate data/export/demo --lm-eval my_task --include my_tasks/

\b
A document is foretold from its first token to its EOD, with an EOD before it. A longer one than the context is seen
through windows that move on by --stride: every token counts once, and the mean is over tokens. Bits per byte are of
the text's UTF-8 bytes and compare models with different tokenizers; words without an entry cost next to nothing, so
look at the unknown tokens beside them.

\b
An export whose tokenizer plain transformers loads (all but word vocabularies) also works with lm-eval by itself:
  lm_eval --model hf --model_args pretrained=data/export/demo --tasks lambada_openai
"""


@click.command(epilog=EPILOG)
@click.argument("ckpt", metavar="CKPT", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--lines", is_flag=True, help="Each line of FILES is a document, not each file.")
@click.option("--store", help="Also the documents of a preprocessed corpus.")
@click.option("--split", type=click.Choice(SPLITS), default="validation", show_default=True, help="Of that corpus.")
@click.option("--documents", type=click.IntRange(min=1), help="The first ones only; then without bytes.")
@click.option("--context", type=click.IntRange(min=2), help="Tokens seen at once; default: as the model was trained.")
@click.option("--stride", type=click.IntRange(min=1), help="How far a window moves on; default: half of the context.")
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Windows at once.")
@click.option("--lm-eval", "tasks", multiple=True, metavar="TASK", help="A task of lm-eval; may be given often.")
@click.option("--include", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of own tasks.")
@click.option("--limit", type=click.IntRange(min=1), help="So many examples of each task.")
@json_option
def command(
    ckpt: Path, files: tuple[Path, ...], lines: bool, store: str | None, split: Split, documents: int | None,
    context: int | None, stride: int | None, batch: int, tasks: tuple[str, ...], include: Path | None,
    limit: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Say how well the model in CKPT (an export or a run) foretells the texts of FILES and of a corpus."""
    if not (files or store or tasks):
        raise UsageError("nothing to evaluate on was given", remedy="name files, --store STORE, or --lm-eval TASK")
    from lmbatch.infer import load_for_generation
    from lmbatch.infer.scoring import Scorer

    quiet_transformers()
    generator = load_for_generation(ckpt)
    used = _context(generator, context)
    stride = stride or max(1, used // 2)
    unknown = generator.tokenizer.unk_token_id
    scorer = Scorer(
        generator.model, eod_id=generator.eod_id, context=used, stride=stride, batch=batch,
        unknown_id=None if unknown == generator.eod_id else unknown,
    )  # fmt: skip
    scores = {str(file): _file(scorer, generator, file, lines) for file in files}
    if store is not None:
        scores[f"{store} ({split})"] = _corpus(scorer, generator, store, split, documents)
    results = _tasks(generator, tasks, include, limit, batch)
    _print(scores, results, {"context": used, "stride": stride}, as_json)


def _context(generator: TextGenerator, wanted: int | None) -> int:
    if wanted is not None and wanted > generator.context:
        raise UsageError(
            f"--context {wanted} is more than the {generator.context} tokens that the model was trained to see",
            remedy="leave it out",
        )
    return wanted or generator.context


def _file(scorer: Scorer, generator: TextGenerator, file: Path, lines: bool) -> Score:
    from lmbatch.infer.scoring import Document

    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: byte {error.start}: is not UTF-8", remedy="convert it first") from error
    texts = [line for line in text.splitlines() if line.strip()] if lines else [text] if text.strip() else []
    documents = [
        Document(generator.tokenizer(each, add_special_tokens=False, verbose=False)["input_ids"], len(each.encode()))
        for each in texts
    ]
    total = sum(len(document.ids) + 1 for document in documents)
    with progress_bar(file.name, "tokens") as update:
        return scorer.score(documents, lambda done: update(done, total, ""))


def _corpus(scorer: Scorer, generator: TextGenerator, uri: str, split: Split, most: int | None) -> Score:
    from lmbatch.infer.scoring import Document

    store = open_store(uri)
    manifest = read_manifest(store, None)
    _check_tokenizer(store, manifest, generator)
    rows = islice(whole_documents(store, manifest, split), most)
    # The bytes of a part of a shard are not known.
    documents = (Document(ids, text_bytes if most is None else 0) for ids, text_bytes in rows)
    with progress_bar(f"{manifest.corpus} ({split})", "tokens") as update:
        total = manifest.tokens(split)
        return scorer.score(documents, lambda done: update(done, total, ""))


def _check_tokenizer(store: Store, manifest: Manifest, generator: TextGenerator) -> None:
    """Raises TokenizerError if the ids of the shards mean other tokens to the model."""
    from lmbatch.tokens import load_tokenizer
    from lmbatch.tokens.same import differing_entry

    with tempfile.TemporaryDirectory(prefix="lmbatch-tokenizer-") as folder:
        for entry in manifest.tokenizer.files:
            store.get_file(entry.key, Path(folder) / Path(entry.key).name)
        theirs = load_tokenizer(folder, manifest.tokenizer.eod_token)
    unlike = differing_entry(generator.tokenizer.get_vocab(), theirs.backend.get_vocab(with_added_tokens=True))
    if unlike is not None:
        raise TokenizerError(
            f"{store.uri}: was written with another tokenizer than the model's: {unlike} (the first is the model's)",
            remedy="evaluate on the text itself",
        )


def _tasks(
    generator: TextGenerator, tasks: tuple[str, ...], include: Path | None, limit: int | None, batch: int
) -> dict[str, Any]:
    if not tasks:
        return {}
    from lmbatch.infer.harness import run_tasks

    return run_tasks(generator, tasks, include=include, limit=limit, batch=batch)


def _print(scores: dict[str, Score], results: dict[str, Any], how: dict[str, int], as_json: bool) -> None:
    if as_json:
        print_json({**how, "texts": {name: score.to_dict() for name, score in scores.items()}, "lm_eval": results})
        return
    if scores:
        click.echo(f"context {how['context']}, stride {how['stride']}")
        heads = ("text", "documents", "tokens", "unknown", "bytes", "loss", "perplexity", "bits per byte")
        print_table(heads, [_row(name, score) for name, score in scores.items()])
    for task, values in results.items():
        shown = ", ".join(f"{name} {value:.4f}" for name, value in values.items() if isinstance(value, float))
        click.echo(f"{task}: {shown}")


def _row(name: str, score: Score) -> tuple[str, ...]:
    bits = "–" if score.bits_per_byte is None else f"{score.bits_per_byte:.4f}"
    counts = (score.documents, score.tokens, score.unknown, score.text_bytes)
    return (name, *(f"{count:,}" for count in counts), f"{score.loss:.4f}", f"{score.perplexity:.2f}", bits)
