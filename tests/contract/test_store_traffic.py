"""What a store says that it has sent and fetched, against what really went over the wire."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lmbatch.store import Backoff, LocalStore, Store, Traffic, open_store
from lmbatch.store.client import Limits
from lmbatch.store.s3 import S3Store
from support.fault_proxy import FaultProxy

MIB = 2**20


@pytest.fixture
def proxy(s3_server, s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server.settings.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def everything(store: Store, tmp_path: Path) -> None:
    """Each operation, at least once: 40 MiB up in one file (three parts on S3), 40 MiB + 25 bytes down."""
    big = tmp_path / "big"
    big.write_bytes(b"x" * (40 * MIB))
    store.put("a", b"0123456789")
    store.put_file("big", big)
    assert store.publish("once", b"first")
    assert not store.publish("once", b"other")  # and it reads what stands there
    assert store.read("a") == b"0123456789"
    assert store.read("a", 5) == b"56789"
    with store.open("big") as file:
        assert len(file.read()) == 40 * MIB
    assert store.exists("a")
    assert not store.exists("b")
    assert len(list(store.list())) == 3
    store.delete("a")
    store.delete("a")


def on_the_wire(proxy: FaultProxy) -> Counter[str]:
    """Requests by method; a listing is a GET there."""
    return Counter(proxy.requests)


@pytest.mark.s3
def test_every_request_to_s3_is_counted(proxy: FaultProxy, s3_uri: str, tmp_path: Path) -> None:
    store = open_store(s3_uri)
    everything(store, tmp_path)
    traffic, wire = store.traffic.total(), on_the_wire(proxy)
    assert traffic.put == wire["PUT"] == 1 + 3 + 2
    assert traffic.post == wire["POST"] == 2
    assert traffic.head == wire["HEAD"]
    assert traffic.get + traffic.list == wire["GET"]
    assert traffic.list == 1
    assert traffic.delete == wire["DELETE"] == 2
    assert traffic.requests == sum(wire.values())
    assert traffic.retries == 0
    assert traffic.bytes_up == 10 + 40 * MIB + 10
    assert traffic.bytes_down == 10 + 5 + 40 * MIB + 5


@pytest.mark.s3
def test_retries_are_counted(proxy: FaultProxy, s3_uri: str) -> None:
    parts = urlsplit(s3_uri)  # the client's own repetitions cannot be seen, so it is to make none
    store = S3Store(parts.netloc, parts.path.strip("/"), limits=Limits(Backoff(base=0.01), inner_retries=0))
    store.put("a", b"0123456789")
    proxy.inject("GET", "truncated")
    assert store.read("a") == b"0123456789"
    traffic = store.traffic.total()
    assert (traffic.get, traffic.retries) == (2, 1)
    assert traffic.get == on_the_wire(proxy)["GET"]


def test_a_folder_counts_the_same_calls(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    everything(store, tmp_path)
    assert store.traffic.total() == Traffic(
        get=4, put=4, head=2, list=1, delete=2, bytes_up=20 + 40 * MIB, bytes_down=20 + 40 * MIB
    )


def test_other_file_systems_count_reading() -> None:
    import fsspec

    fsspec.filesystem("memory").pipe({"memory://traffic/a": b"0123456789"})
    store = open_store("memory://traffic")
    assert store.read("a", 2) == b"23456789"
    assert [info.key for info in store.list()] == ["a"]
    assert store.traffic.total() == Traffic(get=1, head=1, list=1, bytes_down=8)


def test_what_was_taken_is_not_given_again(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"123")
    assert store.traffic.take() == Traffic(put=1, bytes_up=3)
    assert store.traffic.take() == Traffic()
    store.put("b", b"4567")
    assert store.traffic.take() == Traffic(put=1, bytes_up=4)
    assert store.traffic.total() == Traffic(put=2, bytes_up=7)


def test_threads_lose_no_count(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"12345")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.read("a"), range(2000)))
    assert store.traffic.total() == Traffic(put=1, get=2000, bytes_up=5, bytes_down=10_000)


def test_a_store_that_travels_counts_anew(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"123")
    assert pickle.loads(pickle.dumps(store)).traffic.total() == Traffic()
