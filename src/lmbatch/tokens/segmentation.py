"""Word segmentation before a word vocabulary: what its folder says of it (``segmentation.json``), and doing it.

`tokenizers` cannot call a segmenter, so a word tokenizer's tokenizer.json takes words with spaces between them (a
WordLevel model behind WhitespaceSplit), and segmentation.json says who puts the spaces there. lmbatch does it by
itself. Whoever uses the folder with plain transformers does it before calling the tokenizer::

    words = " ".join(word for word in jieba.lcut(text) if not word.isspace())
    ids = tokenizer(words)["input_ids"]

White space of the text is lost by that, as it is with BERT's WordPiece.
"""

from __future__ import annotations

import functools
import importlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lmbatch.errors import TokenizerError

SEGMENTATION_FILE = "segmentation.json"
Segment = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Segmentation:
    """Which segmenter put the spaces between the words of a vocabulary. Another version may cut otherwise."""

    segmenter: str
    version: str

    def to_json(self) -> str:
        """What stands in segmentation.json."""
        return json.dumps({**asdict(self), "separator": " "}, indent=1) + "\n"


def read_segmentation(folder: Path) -> Segmentation | None:
    """What a tokenizer folder says; None if its tokenizer takes text as it is. Raises TokenizerError if damaged."""
    path = folder / SEGMENTATION_FILE
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return Segmentation(str(value["segmenter"]), str(value["version"]))
    except (ValueError, KeyError, TypeError) as error:
        raise TokenizerError(f"{path}: not a segmentation: {error!r}", remedy="fetch the folder again") from error


def installed(segmenter: str) -> Segmentation:
    """The segmenter of that name as it is installed here. Raises TokenizerError if it is not."""
    if segmenter != "jieba":
        raise TokenizerError(f"no such segmenter: {segmenter!r}", remedy="use jieba")
    try:
        return Segmentation(segmenter, metadata.version(segmenter))
    except metadata.PackageNotFoundError as error:
        raise TokenizerError(
            f"the tokenizer's texts are segmented by {segmenter}, which is not installed",
            remedy="pip install 'lmbatch[zh]'",
        ) from error


def check_installed(wanted: Segmentation) -> None:
    """Raises TokenizerError if the segmenter is not installed in that very version: another one may cut otherwise."""
    present = installed(wanted.segmenter)
    if present != wanted:
        raise TokenizerError(
            f"the tokenizer's texts are segmented by {wanted.segmenter} {wanted.version}, here is {present.version}",
            remedy=f"pip install {wanted.segmenter}=={wanted.version}, or train the tokenizer again",
        )


def build_segmenter(wanted: Segmentation, whole: Iterable[str]) -> Segment:
    """A function from a text to its words with spaces between them.

    A word that is in ``whole`` (special tokens) is taken apart, so that no text can spell one.
    Raises TokenizerError if the segmenter is not installed in that very version.
    """
    check_installed(wanted)
    cut = _jieba()
    special = frozenset(whole)

    def segment(text: str) -> str:
        words: list[str] = []
        for word in cut(text):
            words.extend(word if word in special else word.split())
        return " ".join(words)

    return segment


@functools.cache  # loading its dictionary takes a second; it is only read afterwards
def _jieba() -> Callable[[str], Iterable[str]]:
    jieba: Any = importlib.import_module("jieba")  # untyped
    jieba.setLogLevel(logging.WARNING)
    segmenter = jieba.Tokenizer()
    # Its cache of the dictionary is a marshal file of a fixed name in the shared temporary folder: anybody could
    # have put it there.
    with tempfile.TemporaryDirectory() as private:
        segmenter.tmp_dir = private
        segmenter.initialize()

    def cut(text: str) -> Iterable[str]:
        words: Iterable[str] = segmenter.cut(text, cut_all=False, HMM=True)
        return words

    return cut
