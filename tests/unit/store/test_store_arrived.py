"""Entity tags, and the way round them where they are no MD5."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from lmbatch.store import open_store
from lmbatch.store.arrived import etag_of, etag_of_file, is_tag, same_bytes
from support.careless_s3 import CarelessS3


def test_the_tag_of_a_file_is_that_of_its_upload(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for data, parts in ((b"", 1), (b"abc", 1), (b"abcd", 1), (b"abcde", 2), (b"abcdefgh", 2), (b"abcdefghi", 3)):
        path.write_bytes(data)
        digests = [hashlib.md5(data[at : at + 4]).digest() for at in range(0, len(data), 4)]
        many = f"{hashlib.md5(b''.join(digests)).hexdigest()}-{parts}"
        assert etag_of_file(path, 4) == (etag_of(data) if parts == 1 else many)
    assert etag_of(b"abc") == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321, A.5


def test_tags_come_with_quotes_and_without() -> None:
    assert is_tag('"abc"', "abc")
    assert is_tag('W/"abc"', "abc")
    assert is_tag("abc", "abc")
    assert not is_tag(None, "abc")
    assert not is_tag('"abd"', "abc")


def test_the_same_bytes_are_neither_fewer_nor_more(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    assert same_bytes(io.BytesIO(b"abc"), path)
    for other in (b"ab", b"abcd", b"abd", b""):
        assert not same_bytes(io.BytesIO(other), path)


def test_where_the_tag_is_no_md5_the_bytes_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with objects that the server encrypts with a key of its own."""
    (tmp_path / "f").write_bytes(b"0123456789")
    for name, value in (("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")):
        monkeypatch.setenv(name, value)
    with CarelessS3() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        store = open_store("s3://bucket/x")
        store.put("k", b"0123456789")
        assert store.publish("once", b"0123456789")
        assert store.traffic.total().get == 2
