"""The two stored documents that stages meet through: a task's receipt and a corpus's manifest.

Both are plain JSON. A receipt says which bytes a task committed; the manifest is built from receipts alone and
carries the digest that training pins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Literal, TypeVar

import orjson
from pydantic import Field, ValidationError

from lmbatch.config.base import Section, added, operational
from lmbatch.config.chunking import ChunkingConfig
from lmbatch.config.fingerprint import canonical_json, identity
from lmbatch.errors import StoreError
from lmbatch.store.traffic import Traffic

FORMAT_VERSION = 1
MANIFEST_KEY = "manifest.json"
PLAN_KEY = "plan.json"
TOKENIZER_PREFIX = "tokenizer/"
RECEIPTS_PREFIX = "receipts/"

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")


class FileEntry(Section):
    """One stored object and what its bytes must be."""

    key: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class ShardEntry(Section):
    """One token shard: ``bin`` and ``idx`` in Megatron-LM's format, ``docs`` tells where each document came from.

    ``tokens`` counts the EOD tokens too; ``text_bytes`` is UTF-8 bytes of the documents' texts (for bits per byte), of
    a document that was cut its share by tokens. ``sequences`` is given where a document may have several.
    """

    split: Split
    tokens: int = Field(ge=0)
    documents: int = Field(ge=0)
    sequences: int | None = added(None, ge=0)
    text_bytes: int = Field(ge=0)
    bin: FileEntry
    idx: FileEntry
    # Parquet's bytes change with the library that writes them, so the digest leaves them out.
    docs: FileEntry = operational()


class TokenLedger(Section):
    """What became of every token of a corpus that was cut: ``encoded`` + ``eod`` = ``written`` + thrown away."""

    encoded: int = Field(0, ge=0)  # what the tokenizer gave for all documents
    eod: int = Field(0, ge=0)  # EODs that were added
    thrown_away: dict[str, int] = Field(default_factory=dict)  # by reason
    padding: int | None = added(None, ge=0)  # what packed examples lack to their length; not in the shards, nor the sum

    @property
    def lost(self) -> int:
        """Encoded tokens that were not written."""
        return sum(self.thrown_away.values())

    @property
    def written(self) -> int:
        """Tokens that the shards must have, EODs included."""
        return self.encoded + self.eod - self.lost

    @property
    def share_lost(self) -> float:
        """The share of the encoded tokens that was thrown away, 0 to 1."""
        return self.lost / self.encoded if self.encoded else 0.0

    def __add__(self, other: TokenLedger) -> TokenLedger:
        reasons = sorted(self.thrown_away.keys() | other.thrown_away.keys())
        return TokenLedger(
            encoded=self.encoded + other.encoded,
            eod=self.eod + other.eod,
            thrown_away={key: self.thrown_away.get(key, 0) + other.thrown_away.get(key, 0) for key in reasons},
            padding=_sum_of_known(self.padding, other.padding),
        )


def _sum_of_known(one: int | None, other: int | None) -> int | None:
    return one if other is None else other + (one or 0)


class Ledger(Section):
    """The conservation ledger: every record that came in went out, was dropped by name, or was quarantined."""

    records: int = Field(0, ge=0)
    documents: dict[str, int] = Field(default_factory=dict)  # by split
    dropped: dict[str, int] = Field(default_factory=dict)  # by reason
    quarantined: dict[str, int] = Field(default_factory=dict)  # by reason
    changed: dict[str, int] = added({})  # documents by the rule that changed them; no part of the sum
    tokens: TokenLedger | None = added(None)  # where documents were cut; packed ones lose nothing
    # Files behind corpus.max_records ("all" of them or the "rest" of one): their records are not known.
    unread: dict[str, int] = added({})

    @property
    def documents_out(self) -> int:
        """Documents that were written, over all splits."""
        return sum(self.documents.values())

    @property
    def records_dropped(self) -> int:
        """Records that a rule left out on purpose."""
        return sum(self.dropped.values())

    @property
    def records_quarantined(self) -> int:
        """Records that could not be read."""
        return sum(self.quarantined.values())

    @property
    def missing(self) -> int:
        """Records that came in and are nowhere; anything but 0 is a bug or a damaged receipt."""
        return self.records - self.documents_out - self.records_dropped - self.records_quarantined

    @staticmethod
    def total(ledgers: Iterable[Ledger]) -> Ledger:
        """The sum of ledgers, key by key, keys in sorted order."""
        records = 0
        sums: dict[str, dict[str, int]] = {
            "documents": {}, "dropped": {}, "quarantined": {}, "changed": {}, "unread": {},
        }  # fmt: skip
        tokens: TokenLedger | None = None
        for ledger in ledgers:
            records += ledger.records
            if ledger.tokens is not None:
                tokens = ledger.tokens + (tokens or TokenLedger())
            for name, into in sums.items():
                for key, count in getattr(ledger, name).items():
                    into[key] = into.get(key, 0) + count
        sorted_sums = {name: dict(sorted(counts.items())) for name, counts in sums.items()}
        return Ledger(records=records, tokens=tokens, **sorted_sums)


class PieceReceipt(Section):
    """What a task saw of one of its pieces.

    ``first`` and ``end`` are the positions that the reader really began and stopped at; neighbours must meet.
    """

    path: str
    start: int
    end: int
    first_position: int
    end_position: int
    records: int
    unread: Literal["all", "rest"] | None = added(None)  # what corpus.max_records left of it


class Receipt(Section):
    """A task's proof of work: done means these bytes.

    ``traffic`` is what its process has sent to and fetched from the store since its receipt before this one (the first
    one counts the start too), ``input_traffic`` the same of the input's store. ``seal`` is the sha256 of all the rest,
    so that a receipt which was damaged is told from one whose payload was (None in older receipts).
    """

    format_version: int = FORMAT_VERSION
    task: str
    plan: str  # fingerprint of the plan
    attempt: str  # unique to one attempt; no part of the result
    engine: str  # what tokenized
    pieces: tuple[PieceReceipt, ...]
    shards: tuple[ShardEntry, ...]
    quarantine: FileEntry | None = None
    profile: FileEntry | None = None  # lengths, sources and samples for the report; None in older receipts
    ledger: Ledger
    seconds: float = Field(ge=0)
    cpu_seconds: float = Field(ge=0)
    peak_memory_bytes: int = Field(ge=0)
    input_bytes: int = Field(ge=0)
    traffic: Traffic | None = None
    input_traffic: Traffic | None = None
    duplicates: str | None = None  # digest of the lists of duplicates that were left out
    seal: str | None = None

    def sealed(self) -> Receipt:
        """The same receipt with its seal filled in."""
        return self.model_copy(update={"seal": _seal_of(orjson.loads(self.model_dump_json()))})


class TokenizerEntry(Section):
    """The tokenizer that the shards were written with; its files lie under ``tokenizer/``."""

    fingerprint: str
    size: int  # entries, added tokens included
    largest_id: int
    eod_token: str
    eod_id: int
    files: tuple[FileEntry, ...] = ()


class Manifest(Section):
    """The corpus as training sees it. Shards stand in the order of their tasks."""

    format_version: int = FORMAT_VERSION
    corpus: str
    config: str  # fingerprint of the preprocessing config
    dtype: Literal["uint16", "int32"]
    tokenizer: TokenizerEntry
    chunking: ChunkingConfig | None = added(None)  # how documents were cut; without it they were not
    shards: tuple[ShardEntry, ...]
    ledger: Ledger
    digest: str = operational("")

    def of(self, split: Split) -> tuple[ShardEntry, ...]:
        """The shards of one split, in order."""
        return tuple(shard for shard in self.shards if shard.split == split)

    def tokens(self, split: Split) -> int:
        """Tokens of one split, EOD included."""
        return sum(shard.tokens for shard in self.of(split))

    def sequences(self, split: Split) -> int:
        """Sequences of one split: its examples where documents were cut, else its documents."""
        return sum(shard.documents if shard.sequences is None else shard.sequences for shard in self.of(split))

    def computed_digest(self) -> str:
        """``sha256:<hex>`` of the content: no place, time, attempt or number of workers is in it."""
        return "sha256:" + hashlib.sha256(canonical_json(identity(self))).hexdigest()

    def sealed(self) -> Manifest:
        """The same manifest with its digest filled in."""
        return self.model_copy(update={"digest": self.computed_digest()})


DocumentT = TypeVar("DocumentT", bound=Section)


def to_json(document: Section) -> bytes:
    """A stored document as readable UTF-8 JSON with a line end."""
    return document.model_dump_json(indent=1).encode() + b"\n"


def parse_receipt(data: bytes, where: str) -> Receipt:
    """Raises StoreError for bytes that are no receipt, one of a newer version, or one whose seal is wrong."""
    receipt = parse_stored(Receipt, data, where)
    if receipt.seal is not None and receipt.seal != _seal_of(orjson.loads(data)):
        raise StoreError(
            f"{where}: its content does not give its seal",
            remedy="the file was changed or damaged: run `lmbatch repair` on the store",
        )
    return receipt


def _seal_of(value: dict[str, Any]) -> str:
    """Of the JSON object as it is written, not of this version's idea of it: a later version may know more fields."""
    rest = {key: item for key, item in value.items() if key != "seal"}
    return hashlib.sha256(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).hexdigest()


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Raises StoreError for bytes that are no manifest, one of a newer version, or one whose digest is wrong."""
    manifest = parse_stored(Manifest, data, where)
    if manifest.digest != manifest.computed_digest():
        raise StoreError(
            f"{where}: the manifest says {manifest.digest}, its content gives {manifest.computed_digest()}",
            remedy="the file was changed or damaged: run `lmbatch repair` on the store",
        )
    return manifest


def parse_stored(schema: type[DocumentT], data: bytes, where: str) -> DocumentT:
    """Any stored document that carries a ``format_version``; raises StoreError for what this version cannot read."""
    try:
        document = schema.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "(top)"
        raise StoreError(
            f"{where}: not a {schema.__name__.lower()} that this version can read: {place}: {first['msg']}",
            remedy="was it written by a newer lmbatch? If not, it is damaged: run `lmbatch repair` on the store",
        ) from None
    if (version := getattr(document, "format_version", None)) != FORMAT_VERSION:
        raise StoreError(
            f"{where}: written in format {version}, this lmbatch reads format {FORMAT_VERSION}",
            remedy="use the lmbatch version that wrote it",
        )
    return document
