import sys
from pathlib import Path

import pytest

from lmbatch.errors import StoreError
from lmbatch.store import LocalStore, open_store
from lmbatch.store.location import parse_location


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.mark.parametrize(
    ("uri", "path"),
    [("file:///data/中文 x", "/data/中文 x"), ("/data/x/", "/data/x"), ("file:///data/%20", "/data/%20"), ("/", "/"),
     ("rel/x", "CWD/rel/x"), ("file://rel/x", "CWD/rel/x"), (".", "CWD"), ("a@b/c?d#e", "CWD/a@b/c?d#e"),
     ("FILE:///data", "/data"), ("rel/../other", "CWD/other"), ("~/x", "HOME/x")],
)  # fmt: skip
def test_paths_and_file_uris(uri: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    store = open_store(uri)
    assert isinstance(store, LocalStore)
    expected = path.replace("CWD", str(tmp_path)).replace("HOME", "/home/someone")
    assert store.uri == f"file://{expected}"
    assert open_store(store.uri).uri == store.uri
    assert store.local_path("k") == Path(expected) / "k"


@pytest.mark.parametrize(
    ("uri", "canonical"),
    [("s3://bucket", "s3://bucket"), ("s3://bucket/", "s3://bucket"), ("s3://bucket/a/b/", "s3://bucket/a/b"),
     ("S3://bucket/语料", "s3://bucket/语料"), ("memory://x/", "memory://x")],
)  # fmt: skip
def test_object_stores(uri: str, canonical: str) -> None:
    assert open_store(uri).uri == canonical


@pytest.mark.parametrize(
    "uri",
    ["s3://AKIAX:hush@bucket/prefix", "s3://hush@bucket", "https://user:hush@host/x", "s3://u:hush@host:9000/bucket",
     "s3://bucket/x?secret=hush", "https://host/x?X-Amz-Signature=hush", "s3://bucket/x#hush"],
)  # fmt: skip
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(StoreError, match="inside its URI") as error:
        parse_location(uri)
    assert "hush" not in str(error.value)


@pytest.mark.parametrize("uri", ["s3://", "s3:///prefix", "s3://bucket/a//b", "s3://bucket/../x", "s3://buc ket/x"])
def test_what_names_no_bucket_or_prefix_is_refused(uri: str) -> None:
    with pytest.raises(StoreError, match="not (a key|the name of a bucket)"):
        open_store(uri)


@pytest.mark.parametrize("uri", ["", "  "])
def test_no_store_is_named(uri: str) -> None:
    with pytest.raises(StoreError, match="no store is named"):
        open_store(uri)


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(StoreError, match="nonsense"):
        open_store("nonsense://x")


def test_without_obstore_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(StoreError) as error:
        open_store("s3://bucket")
    assert error.value.remedy == "pip install lmbatch[s3]"
