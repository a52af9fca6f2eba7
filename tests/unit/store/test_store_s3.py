import logging
import os
import socket
import traceback
from pathlib import Path

import pytest
from obstore.exceptions import GenericError

from lmbatch.errors import ObjectNotFoundError, StoreAccessError, StoreError
from lmbatch.store import Backoff, ObjectInfo, Store, open_store
from lmbatch.store.client import Limits
from lmbatch.store.s3 import S3Store, part_bytes

MIB = 2**20


@pytest.mark.parametrize(
    ("size", "part"), [(0, 16 * MIB), (256 * MIB, 16 * MIB), (160_000 * MIB, 16 * MIB), (160_000 * MIB + 1, 17 * MIB),
                       (5 * 2**40, 525 * MIB)]
)  # fmt: skip
def test_parts_are_few_enough(size: int, part: int) -> None:
    assert part_bytes(size) == part
    assert -(-size // part) <= 10_000


def attempts(store: Store, path: Path) -> list:
    return [
        lambda: store.read("k"), lambda: store.open("k"), lambda: store.info("k"), lambda: store.exists("k"),
        lambda: list(store.list()), lambda: store.put("k", b"1"), lambda: store.put_file("k", path),
        lambda: store.publish("k", b"1"), lambda: store.delete("k"), lambda: store.get_file("k", path),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_refused_keys_are_told_at_once_and_never_shown(s3_uri: str, monkeypatch, tmp_path, caplog, name: str) -> None:
    monkeypatch.setenv(name, "wrong-and-still-secret")
    secret, store = os.environ["AWS_SECRET_ACCESS_KEY"], open_store(s3_uri)
    (tmp_path / "f").write_bytes(os.urandom(17 * MIB))  # large enough for parts
    with caplog.at_level(logging.DEBUG):
        for attempt in attempts(store, tmp_path / "f"):
            with pytest.raises(StoreAccessError) as error:
                attempt()
            assert s3_uri in str(error.value)
            assert "clock" in str(error.value.remedy)
            assert secret not in "".join(traceback.format_exception(error.value)) + repr(error.value)
    assert secret not in caplog.text
    assert not [record for record in caplog.records if record.name == "lmbatch.store.retry"]
    assert secret not in repr(store) + repr(vars(store)) + str(store._made.config)


def test_a_missing_bucket_is_told_for_every_operation(s3_uri: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1")
    for number in range(10):
        store = open_store("s3://no-such-bucket/x")  # anew, so that no answer of an earlier operation helps
        with pytest.raises(StoreError, match="no bucket 'no-such-bucket' at http://") as error:
            attempts(store, tmp_path / "f")[number]()
        assert not isinstance(error.value, ObjectNotFoundError)
        assert "AWS_ENDPOINT_URL" in str(error.value.remedy)


def test_a_missing_object_in_a_bucket_is_only_that(s3_uri: str) -> None:
    with pytest.raises(ObjectNotFoundError):
        open_store(s3_uri).info("k")


def test_a_silent_address_is_given_up(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        limits = Limits(Backoff(2, 0.01, 0.01), connect=0.2, silence=0.2, whole=0.4, inner_retries=0)
        with pytest.raises(StoreError, match="could not read"):
            S3Store("bucket", limits=limits).read("k")


def test_two_prefixes_do_not_see_each_other(s3_uri: str) -> None:
    one, two = open_store(f"{s3_uri}/run"), open_store(f"{s3_uri}/run-2")
    one.put("k", b"1")
    two.put("k", b"2")
    assert [info.key for info in one.list()] == ["k"]
    assert one.read("k") == b"1"
    assert [info.key for info in open_store(s3_uri).list("run-")] == ["run-2/k"]


def test_an_upload_that_arrived_short_is_noticed(s3_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1234")
    monkeypatch.setattr(S3Store, "info", lambda _, key: ObjectInfo(key, 3, None, None))
    with pytest.raises(StoreError, match="4 bytes were sent .* 3 are there"):
        open_store(s3_uri).put_file("k", tmp_path / "f")


def test_a_secret_in_the_servers_words_is_masked(s3_uri: str, caplog: pytest.LogCaptureFixture) -> None:
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]

    class Echoing:
        """Fails as obstore does, with the secret in its text and in the server's message."""

        def head(self, *_: object) -> None:
            body = f"<Code>Odd</Code><Message>your key {secret}</Message>"
            raise GenericError(f"Server returned non-2xx status code: 500 X: {body}\n\nDebug {secret}")

    store = S3Store("bucket", limits=Limits(Backoff(2, 0.0, 0.0)))
    store._obstore = Echoing()
    with pytest.raises(StoreError, match=r"your key \*\*\*") as error:
        store.info("k")
    assert "attempt 2 of 2" in caplog.text
    assert secret not in caplog.text + "".join(traceback.format_exception(error.value))
