"""What is known about a model: its card's table, or what can be told without one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lmbatch.infer import TextGenerator
from lmbatch.model import parameter_counts
from lmbatch.store import parse_manifest

_CARD = "README.md"
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_ROW = re.compile(r"^\| ([^|]+?) \| (.+?) \|$", re.MULTILINE)
_MOST = 100_000  # characters of a card that are looked at


@dataclass(frozen=True, slots=True)
class About:
    """A name and a table, all of it plain text."""

    name: str
    rows: tuple[tuple[str, str], ...]


def about(folder: Path, generator: TextGenerator) -> About:
    """From the card of an exported folder; without one, from the model itself and the manifest of its run."""
    card = folder / _CARD
    text = card.read_text(encoding="utf-8", errors="replace")[:_MOST] if card.is_file() else ""
    rows = tuple((name, value.replace("`", "")) for name, value in _ROW.findall(text))
    title = _TITLE.search(text)
    return About(
        title[1].strip() if title else folder.resolve().name, rows or (*_measured(generator), *_corpus(folder))
    )


def _measured(generator: TextGenerator) -> tuple[tuple[str, str], ...]:
    counts = parameter_counts(generator.model)
    return (
        ("Architecture", str(generator.model.config.model_type)),
        ("Parameters", f"{counts.total:,} ({counts.non_embedding:,} without embeddings)"),
        ("Context", f"{generator.context:,} tokens"),
        ("Vocabulary", f"{generator.model.config.vocab_size:,} entries"),
    )


def _corpus(folder: Path) -> tuple[tuple[str, str], ...]:
    path = folder / "manifest.json"
    if not path.is_file():
        return ()
    manifest = parse_manifest(path.read_bytes(), str(path))
    return (
        ("Corpus", f"{manifest.corpus}: {manifest.tokens('train'):,} training tokens"),
        ("Manifest digest", manifest.digest),
    )
