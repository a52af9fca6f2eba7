"""Real text cut into documents as long as those of another corpus. Pure.

A corpus's documents decide what a way of cutting them throws away, so text that stands in for a corpus must have
documents of its lengths: exponentially distributed about its mean, which is what web text and encyclopaedias look like
to the first order.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from lmbatch.corpus.demo_documents import DemoDocument

_SPEECH = re.compile(r"^\*\*.+\*\*\s*\n((?:.+\n?)+)", re.MULTILINE)


def passages(documents: Sequence[DemoDocument], *, mean: int, most: int) -> list[DemoDocument]:
    """Each document's lines joined to passages of ``mean`` characters on average, up to ``most`` characters in all.

    Documents are taken in the order of a hash of their keys, so that a small corpus has laws of every kind and
    chapters of the novel. A line is never cut.
    """
    found: list[DemoDocument] = []
    size = 0
    for document in sorted(documents, key=lambda one: _uniform(one.key)):
        for passage in _cut(document, mean):
            if size >= most:
                return found
            found.append(passage)
            size += len(passage.content)
    return found


def _cut(document: DemoDocument, mean: int) -> Iterator[DemoDocument]:
    lines: list[str] = []
    number = 0
    for line in document.content.splitlines():
        if not line.strip():
            continue
        lines.append(line)
        key = f"{document.key}#{number}"
        if sum(map(len, lines)) >= -mean * math.log(1 - _uniform(key)):
            yield DemoDocument(key, document.category, document.title, "\n".join(lines))
            lines, number = [], number + 1
    if lines:
        yield DemoDocument(f"{document.key}#{number}", document.category, document.title, "\n".join(lines))


def _uniform(key: str) -> float:
    """A number of [0, 1) that depends on ``key`` alone."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=6).digest(), "big") / 2**48


def speeches(plays: Mapping[str, bytes]) -> dict[str, list[str]]:
    """The speeches of plays in Markdown (a name in bold, then lines of verse), each as one line, by the play's name."""
    return {
        name.rpartition("/")[2].removesuffix(".md"): [
            " ".join(match[1].split()) for match in _SPEECH.finditer(data.decode("utf-8"))
        ]
        for name, data in plays.items()
    }
