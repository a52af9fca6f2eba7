"""The texts of a corpus that a tokenizer is trained on: bounded, and the same every time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from lmbatch.config import PreprocessConfig, TokenizerConfig
from lmbatch.corpus import InputFile, Seen, build_cleaner, probe, read_piece, split_file
from lmbatch.corpus.document import Document
from lmbatch.store import open_store


class Sample:
    """Cleaned texts, drawn by the hash of their text. Iterating again gives the same ones.

    ``documents`` and ``text_bytes`` (UTF-8) count what the last iteration gave.
    """

    def __init__(self, corpus: PreprocessConfig, config: TokenizerConfig, files: Sequence[InputFile]) -> None:
        self.documents = 0
        self.text_bytes = 0
        self._corpus = corpus
        self._config = config
        self._files = files

    def __iter__(self) -> Iterator[str]:
        self.documents = self.text_bytes = 0
        # The share is set from bytes of input, which exceed bytes of text, so the cap below seldom bites.
        share = min(1.0, self._config.sample_bytes / max(1, sum(file.size for file in self._files)))
        salt = f"tokenizer:{self._config.seed}:".encode()
        for text in self._texts():
            if not _drawn(salt, text, share):
                continue
            size = len(text.encode())
            if self.text_bytes + size > self._config.sample_bytes:
                return
            self.documents += 1
            self.text_bytes += size
            yield text

    def _texts(self) -> Iterator[str]:
        raw = open_store(self._corpus.corpus.raw)
        clean = build_cleaner(self._corpus.cleaning)
        left = self._corpus.corpus.max_records
        for file in self._files:
            facts = probe(raw, self._corpus.corpus, file)
            for piece in split_file(file, facts, self._corpus.corpus, max(1, file.size)):
                seen = Seen()
                for record in read_piece(raw, self._corpus.corpus, piece, facts, seen, most=left):
                    document = clean(record) if isinstance(record, Document) else record
                    if isinstance(document, Document):
                        yield document.text
                left = None if left is None else left - seen.records


def _drawn(salt: bytes, text: str, share: float) -> bool:
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=salt[:64]).digest()
    return int.from_bytes(digest, "big") < share * 2**64
