"""A folder of corpus files that is there whole, or not at all: its list of checksums is written last."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from lmbatch.store import LocalStore

CHECKSUMS = "SHA256SUMS"  # what `sha256sum -c` reads; written last


def write_files(files: Mapping[str, bytes], into: Path) -> list[Path]:
    """Write the files, each whole or not at all, and at last the list of their checksums."""
    store = LocalStore(into)
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
