"""Reading text files each of which is one document."""

from __future__ import annotations

from collections.abc import Iterator

from lmbatch.corpus.document import Record
from lmbatch.corpus.source import Source
from lmbatch.corpus.stream import open_window


def read(source: Source) -> Iterator[Record]:
    """The one record of a text file."""
    make, limit, content = source.make, source.config.max_record_bytes, source.probe.content_start
    with open_window(source.store, source.piece.path) as window:
        while window.end - content <= limit and window.more():
            pass
        raw = window.cut(content, window.end)
        while window.more():
            window.drop(window.end)
        source.seen.first_position, source.seen.end_position = content, window.end
        if window.damage:
            yield make.rejected(content, window.end - content, "truncated", window.damage, raw)
        elif window.end - content > limit:
            yield make.too_large(content, window.end - content, raw)
        else:
            yield make.from_text(raw, content)
