"""Write one shard, document by document, in memory that does not grow with its tokens."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmbatch.errors import ShardError
from lmbatch.shards.batch import DocumentBatch, PackedBatch
from lmbatch.shards.docs import DocsWriter
from lmbatch.shards.dtypes import TokenArray, as_tokens, itemsize_of
from lmbatch.shards.files import HashingFile
from lmbatch.shards.index import LONGEST_DOCUMENT, encode_index
from lmbatch.store.files import sync_folder
from lmbatch.store.manifest import FileEntry, ShardEntry, Split


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """A finished shard on local disk. Sizes in bytes, hashes in hex; ``tokens`` counts EOD too.

    ``sequences`` is None where each document is one.
    """

    bin: Path
    idx: Path
    docs: Path
    bin_size: int
    idx_size: int
    docs_size: int
    bin_sha256: str
    idx_sha256: str
    docs_sha256: str
    tokens: int
    documents: int
    sequences: int | None
    text_bytes: int

    def entry(self, split: Split, stem: str) -> ShardEntry:
        """What a receipt says of this shard when its files are stored as ``STEM.bin``, ``.idx``, ``.docs.parquet``."""
        return ShardEntry(
            split=split,
            tokens=self.tokens,
            documents=self.documents,
            sequences=self.sequences,
            text_bytes=self.text_bytes,
            bin=FileEntry(key=f"{stem}.bin", size=self.bin_size, sha256=self.bin_sha256),
            idx=FileEntry(key=f"{stem}.idx", size=self.idx_size, sha256=self.idx_sha256),
            docs=FileEntry(key=f"{stem}.docs.parquet", size=self.docs_size, sha256=self.docs_sha256),
        )


class ShardWriter:
    """Writes ``STEM.bin``, ``STEM.idx`` and ``STEM.docs.parquet`` into a local folder.

    The same documents give the same bytes (docs.parquet: with the same version of pyarrow). Files of that name that
    an interrupted attempt left are overwritten. Raises StoreFullError or StoreError, naming the file; after that
    only abort() is of use.
    """

    def __init__(self, folder: Path, stem: str, dtype: str, *, examples: bool = False) -> None:
        """``examples``: a document may have several sequences, whose lengths are given with it."""
        self._folder = folder
        self._stem = stem
        self._dtype = dtype
        self.itemsize = itemsize_of(dtype)  # bytes of a token
        self._lengths = array("i")
        self._firsts = array("q")
        self._examples = examples
        self._documents = 0
        self._tokens = 0
        self._text_bytes = 0
        self._failed = False
        self._files = {kind: HashingFile(folder / f"{stem}.{kind}") for kind in ("bin", "idx", "docs.parquet")}
        self._bin = self._files["bin"]
        self._rows = DocsWriter(self._files["docs.parquet"])

    @property
    def tokens(self) -> int:
        """Tokens so far, EOD included."""
        return self._tokens

    @property
    def documents(self) -> int:
        """Documents so far."""
        return self._documents

    @property
    def sequences(self) -> int:
        """Sequences so far."""
        return len(self._lengths)

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the documents' texts so far."""
        return self._text_bytes

    @property
    def bytes(self) -> int:
        """Bytes of the payload (``.bin``) so far."""
        return self._tokens * self.itemsize

    def append(
        self,
        ids: Sequence[int] | np.ndarray[Any, Any],
        *,
        piece: int,
        position: int,
        id: str | None,  # noqa: A002  (the corpus's word for it)
        text_bytes: int,
        lengths: Sequence[int] | None = None,
    ) -> None:
        """Adds one document. Nothing is written if it is refused.

        ``lengths`` are the tokens of each of its sequences, which are its ``ids`` end to end; they are given if the
        writer was made for examples. Raises VocabularyError for an id that does not fit the dtype, ShardError for a
        document without ids or with lengths that are not those of its ids.
        """

        def name() -> str:
            return f"{self._stem}: document {self.documents} (id {id!r}, piece {piece}, position {position})"

        tokens = as_tokens(ids, self._dtype, name)
        if len(tokens) > LONGEST_DOCUMENT:
            raise ShardError(
                f"{name()}: {len(tokens)} tokens, more than an index can say", remedy="lower max_record_bytes"
            )
        sequences = self._sequences(tokens, lengths, name)
        try:
            self._bin.write(tokens.data)
            self._rows.append(piece=piece, position=position, id=id, tokens=len(tokens))
        except BaseException:
            self._failed = True
            raise
        self._firsts.append(len(self._lengths))
        self._lengths.extend(sequences)
        self._documents += 1
        self._tokens += len(tokens)
        self._text_bytes += text_bytes

    def extend(self, batch: DocumentBatch) -> None:
        """Adds the documents of a batch, with the same result as `append` for each of them, and its errors.

        Where one is refused, those before it have been added.
        """
        tokens = batch.sound_tokens(self._dtype, self._examples) if len(batch) else None
        if tokens is None:
            self._append_each(batch)
            return
        counts = batch.tokens.tolist()
        try:
            self._bin.write(tokens.data)
            self._rows.extend(batch.pieces, batch.positions, batch.ids, counts)
        except BaseException:
            self._failed = True
            raise
        sequences = np.ones(len(batch), np.int64) if batch.sequences is None else batch.sequences
        self._firsts.extend((len(self._lengths) + np.cumsum(sequences) - sequences).tolist())
        self._lengths.extend(counts if batch.lengths is None else batch.lengths.tolist())
        self._documents += len(batch)
        self._tokens += len(tokens)
        self._text_bytes += int(batch.text_bytes.sum())

    def extend_packed(self, batch: PackedBatch) -> None:
        """Adds examples of several documents: each is one sequence, and a document of its own to Megatron-LM; a row of
        docs.parquet is a part of a document. Nothing is written if it is refused, with the errors of `append`."""
        if not self._examples or not batch.sound:
            raise ShardError(f"{self._stem}: examples of other lengths than those of their documents")
        tokens = as_tokens(batch.flat, self._dtype, f"{self._stem}: documents {self.documents} and on")
        try:
            self._bin.write(tokens.data)
            self._rows.extend(batch.pieces, batch.positions, batch.ids, batch.tokens.tolist())
        except BaseException:
            self._failed = True
            raise
        self._firsts.extend(range(len(self._lengths), len(self._lengths) + len(batch)))
        self._lengths.extend(batch.lengths.tolist())
        self._documents += batch.documents
        self._tokens += len(tokens)
        self._text_bytes += batch.text_bytes

    def _append_each(self, batch: DocumentBatch) -> None:
        for number in range(len(batch)):
            one = batch.part(number, number + 1)
            self.append(
                one.flat,
                piece=one.pieces[0],
                position=one.positions[0],
                id=one.ids[0],
                text_bytes=int(one.text_bytes[0]),
                lengths=None if one.lengths is None else one.lengths.tolist(),
            )

    def close(self) -> WrittenShard:
        """Finishes the three files; they and their names are on disk when it returns."""
        if self._failed:
            raise ShardError(f"{self._stem}: an earlier write failed, so the shard cannot be finished")
        try:
            self._files["idx"].write(encode_index(self._lengths, self._dtype, self._firsts))
            self._rows.close()
            bin_, idx, docs = (file.commit() for file in self._files.values())
            sync_folder(self._folder)
        except BaseException:
            self._failed = True
            raise
        return WrittenShard(
            bin=bin_.path,
            idx=idx.path,
            docs=docs.path,
            bin_size=bin_.size,
            idx_size=idx.size,
            docs_size=docs.size,
            bin_sha256=bin_.sha256,
            idx_sha256=idx.sha256,
            docs_sha256=docs.sha256,
            tokens=self.tokens,
            documents=self.documents,
            sequences=self.sequences if self._examples else None,
            text_bytes=self.text_bytes,
        )

    def abort(self) -> None:
        """Removes the three files. May be called at any time, also twice."""
        self._failed = True
        for file in self._files.values():
            file.discard()
        self._rows.abandon()

    def _sequences(self, tokens: TokenArray, lengths: Sequence[int] | None, name: Callable[[], str]) -> Sequence[int]:
        if lengths is None and not self._examples:
            return (len(tokens),)
        if not self._examples or not lengths or min(lengths) < 1 or sum(lengths) != len(tokens):
            raise ShardError(f"{name()}: sequences of {lengths} tokens are not its {len(tokens)} tokens")
        return lengths
