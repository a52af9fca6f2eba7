"""From the fields of a record to a document, or to the reason why it is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

from lmbatch.config import CorpusConfig
from lmbatch.corpus.document import Document, Record, Rejected

_EXCERPT_BYTES = 200


class RecordMaker:
    """Makes the records of one file, as the corpus config wants them."""

    def __init__(self, config: CorpusConfig, path: str) -> None:
        self._config = config
        self._path = path
        # Asked for in every record.
        self._text_fields, self._separator = config.text_fields, config.text_separator
        self._id_field, self._metadata_fields = config.id_field, config.metadata_fields
        self._names = [*config.text_fields, *([config.id_field] if config.id_field else [])]
        self._spellings = [spelling for name in self._names for spelling in _spellings(name)]

    def from_json(self, raw: bytes, position: int) -> Record:
        """The record in ``raw``, one JSON value without white space around it that begins at ``position``."""
        if len(raw) > self._config.max_record_bytes:
            return self.too_large(position, len(raw), raw)
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            return self._invalid(raw, position, error)
        if type(value) is dict:
            return self.from_object(value, raw, position)
        detail = f"{_json_type(value)} stands where an object should be"
        return self.rejected(position, len(raw), "not_an_object", detail, raw)

    def from_object(self, value: dict[str, Any], raw: bytes, position: int) -> Record:
        """The record in ``raw``, already parsed to ``value``."""
        if len(raw) > self._config.max_record_bytes:
            return self.too_large(position, len(raw), raw)
        for spelling in self._spellings:
            if raw.count(spelling) > 1 and (twice := _duplicate(raw, self._names)):
                return self.rejected(position, len(raw), "duplicate_key", f"the field {twice!r} stands twice", raw)
        return self.from_fields(value, position, len(raw), raw)

    def from_fields(self, value: Mapping[str, Any], position: int, length: int, raw: bytes = b"") -> Record:
        """The record whose fields are ``value``; ``raw`` is shown if it is rejected."""
        texts = [value.get(name) for name in self._text_fields]
        for name, found in zip(self._text_fields, texts, strict=True):
            if type(found) is not str and (found is not None or name not in value):
                return self._no_text(name, value, position, length, raw)
        # A null beside another field's text is taken like an empty one: the document is not lost for its title.
        text = self._separator.join(filter(None, texts))
        if not text or text.isspace():
            reason, what = ("null_text", "null") if None in texts else ("empty_text", "empty")
            return self._without_text(reason, f"{_fields(self._config.text_fields)} {what}", position, length, raw)
        metadata = {name: value[name] for name in self._metadata_fields if name in value}
        return Document(text, self._path, position, self._id(value), metadata)

    def from_text(self, raw: bytes, position: int) -> Record:
        """The record whose text is all of ``raw``."""
        if len(raw) > self._config.max_record_bytes:
            return self.too_large(position, len(raw), raw)
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            return self.invalid_utf8(position, error, raw)
        if not text or text.isspace():
            return self._without_text("empty_text", "there is nothing but white space", position, len(raw), raw)
        return Document(text, self._path, position)

    def too_large(self, position: int, length: int, raw: bytes = b"") -> Rejected:
        """A record longer than ``max_record_bytes``."""
        limit = self._config.max_record_bytes
        detail = f"the record has {length:,} bytes; corpus.max_record_bytes allows {limit:,}"
        return self.rejected(position, length, "record_too_large", detail, raw)

    def invalid_utf8(self, position: int, error: UnicodeDecodeError, raw: bytes, where: str = "") -> Rejected:
        """Bytes that are no UTF-8; ``error`` counts from the start of the record, or of the value at ``where``."""
        place = where or f"byte {position + error.start}"
        bad = error.object[error.start]
        return self.rejected(position, len(raw), "invalid_utf8", f"{place}: 0x{bad:02x} is no UTF-8", raw)

    def rejected(self, position: int, length: int, reason: str, detail: str, raw: bytes = b"") -> Rejected:
        """A record that is quarantined."""
        return Rejected(self._path, position, length, reason, detail, excerpt(raw))

    def _invalid(self, raw: bytes, position: int, error: orjson.JSONDecodeError) -> Rejected:
        try:
            text = raw.decode()
        except UnicodeDecodeError as bad:
            return self.invalid_utf8(position, bad, raw)
        place = position + len(text[: error.pos].encode())
        detail = f"byte {place}: {error.msg.partition(': line')[0]}"
        return self.rejected(position, len(raw), "invalid_json", detail, raw)

    def _no_text(self, name: str, value: Mapping[str, Any], position: int, length: int, raw: bytes) -> Rejected:
        if name in value:
            detail = f"the field {name!r} is {_json_type(value[name])}, not a string"
            return self.rejected(position, length, "text_not_a_string", detail, raw)
        there = ", ".join(map(str, value)) or "none"
        return self._without_text(
            "missing_text", f"there is no field {name!r}; the fields are: {there}", position, length, raw
        )

    def _without_text(self, reason: str, detail: str, position: int, length: int, raw: bytes) -> Rejected:
        dropped = self._config.missing_text == "drop"
        return Rejected(self._path, position, length, reason, detail, excerpt(raw), dropped)

    def _id(self, value: Mapping[str, Any]) -> str | None:
        found = value.get(self._id_field) if self._id_field else None
        if found is None or found == "":
            return None
        return (
            found
            if type(found) is str
            else str(found)
            if type(found) is int
            else json.dumps(found, ensure_ascii=False, default=str)
        )


def excerpt(raw: bytes) -> str:
    """The beginning of a record, with bytes that are no UTF-8 replaced."""
    return raw[:_EXCERPT_BYTES].decode(errors="replace")


def _spellings(name: str) -> set[bytes]:
    """A key as JSON may spell it: as it is, or in ASCII with escapes."""
    return {json.dumps(name, ensure_ascii=False).encode(), json.dumps(name).encode()}


def _duplicate(raw: bytes, names: list[str]) -> str | None:
    """The first of ``names`` that stands more than once in the outermost object."""
    pairs: list[tuple[str, Any]] = []

    def remember(found: list[tuple[str, Any]]) -> None:
        pairs[:] = found  # the outermost object is closed last

    try:
        json.loads(raw, object_pairs_hook=remember)
    except RecursionError:  # nested more deeply than Python can follow, though orjson can
        return None
    keys = [key for key, _ in pairs]
    return next((name for name in names if keys.count(name) > 1), None)


def _fields(names: tuple[str, ...]) -> str:
    quoted = ", ".join(repr(name) for name in names)
    return f"the field {quoted} is" if len(names) == 1 else f"the fields {quoted} are"


def _json_type(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case dict():
            return "an object"
    return f"a {type(value).__name__}"
