"""One suite over every store: a folder, a real S3 server, and for the reading part any fsspec file system."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest

from lmbatch.errors import ObjectNotFoundError, StoreError
from lmbatch.store import Store, check_publish_once, open_store

MIB = 2**20
OBJECTS = {
    "a.txt": b"before the slash",
    "a/one": b"0123456789",
    "a/two": b"",
    "b/中文 文件/第一章.txt": "中文".encode(),
    "b/percent%20and+plus~#?&='.txt": b"odd",
}
REFUSED_KEYS = ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a\nb", "a\\b", "\udc80", "x" * 256,
                "y/" * 600 + "y", ".lmbatch-tmp-1", "a/.lmbatch-tmp-1"]  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A store, and a way to fill it that needs none of its own writing where it has none."""

    store: Store
    fill: Callable[[dict[str, bytes]], None]


@pytest.fixture
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return request.getfixturevalue("s3_uri")
    return {"file": f"file://{tmp_path}/中文 store", "memory": f"memory://{secrets.token_hex(6)}"}[request.param]


@pytest.fixture
def place(uri: str) -> Place:
    store = open_store(uri)

    def fill(objects: dict[str, bytes]) -> None:
        if uri.startswith("memory"):
            fsspec.filesystem("memory").pipe({f"{uri}/{key}": data for key, data in objects.items()})
        else:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(store.put, objects, objects.values()))

    return Place(store, fill)


@pytest.fixture
def store(place: Place) -> Store:
    return place.store


S3 = pytest.param("s3", marks=pytest.mark.s3)
reading = pytest.mark.parametrize("uri", ["file", S3, "memory"], indirect=True)
writing = pytest.mark.parametrize("uri", ["file", S3], indirect=True)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@reading
def test_reads_whole_objects_and_tells_their_sizes(place: Place) -> None:
    place.fill(OBJECTS)
    for key, data in OBJECTS.items():
        assert place.store.read(key) == data
        info = place.store.info(key)
        assert (info.key, info.size) == (key, len(data))
        assert info.modified is not None
        assert info.modified > 1.6e9
        assert place.store.exists(key)


@reading
@pytest.mark.parametrize(
    ("start", "end"), [(0, 10), (0, None), (3, 7), (3, None), (9, 10), (0, 99), (5, 99), (10, None), (10, 12),
                       (99, None), (99, 100), (4, 4), (0, 0), (7, 3)]
)  # fmt: skip
def test_ranges_are_cut_off_at_the_end_of_the_object(place: Place, start: int, end: int | None) -> None:
    place.fill(OBJECTS)
    assert place.store.read("a/one", start, end) == b"0123456789"[start:end]
    assert place.store.read("a/two", start, end) == b""


@reading
def test_a_range_before_the_beginning_is_refused(place: Place) -> None:
    place.fill(OBJECTS)
    for start, end in [(-1, None), (0, -1)]:
        with pytest.raises(StoreError, match="count from 0"):
            place.store.read("a/one", start, end)


@reading
def test_lists_everything_in_the_order_of_the_keys(place: Place) -> None:
    place.fill(OBJECTS)
    listed = list(place.store.list())
    assert [info.key for info in listed] == sorted(OBJECTS)
    assert {info.key: info.size for info in listed} == {key: len(data) for key, data in OBJECTS.items()}


@reading
@pytest.mark.parametrize(
    "prefix", ["a", "a/", "a/t", "b/中文", "b/中文 文件/", "nothing", "nothing/", "a.txt", "a/one/"]
)
def test_a_prefix_is_any_beginning_of_a_key(place: Place, prefix: str) -> None:
    place.fill(OBJECTS)
    assert [info.key for info in place.store.list(prefix)] == sorted(key for key in OBJECTS if key.startswith(prefix))


@reading
def test_lists_more_objects_than_one_page_holds(place: Place) -> None:
    objects = {f"many/{number:05d}": b"x" for number in range(1_050)}
    place.fill(objects)
    assert [info.key for info in place.store.list("many/")] == list(objects)


@reading
def test_an_empty_store_lists_nothing(place: Place) -> None:
    assert list(place.store.list()) == []


@reading
def test_missing_objects_are_named(place: Place, tmp_path: Path) -> None:
    place.fill(OBJECTS)
    for key in ("nope", "a", "a/nope", "a/one/below"):
        assert not place.store.exists(key)
        for operation in (place.store.read, place.store.info, place.store.open):
            with pytest.raises(ObjectNotFoundError, match=key):
                operation(key)
        with pytest.raises(ObjectNotFoundError, match=key):
            place.store.read(key, 3, 3)
        with pytest.raises(ObjectNotFoundError, match=key):
            place.store.get_file(key, tmp_path / "copy")
    assert not list(tmp_path.glob("copy*"))


@reading
def test_many_are_read_in_the_order_that_was_asked_for_and_missing_ones_are_none(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmbatch.store.base._READ_AHEAD", 7)
    place.fill(OBJECTS)
    keys = [*reversed(OBJECTS), "nope", "a", "a/nope", "a/one/below", *OBJECTS]
    assert list(place.store.read_many(keys)) == [OBJECTS.get(key) for key in keys]
    assert list(place.store.read_many([])) == []
    with pytest.raises(StoreError, match="not a key"):
        list(place.store.read_many(["a/one", "../x"]))


@reading
def test_a_stream_can_be_read_in_pieces_and_sought(place: Place) -> None:
    data = os.urandom(5 * MIB + 3)
    place.fill({"big": data, "lines": b"one\ntwo\nthree", "empty": b""})
    with place.store.open("big") as stream:
        assert stream.read(10) == data[:10]
        assert stream.seek(-7, io.SEEK_END) == len(data) - 7
        assert stream.read() == data[-7:]
        stream.seek(4 * MIB - 1)
        assert stream.read(2 * MIB) == data[4 * MIB - 1 :]
        stream.seek(0)
        assert hashlib.file_digest(stream, "sha256").digest() == hashlib.sha256(data).digest()
    with place.store.open("lines") as stream:
        assert list(stream) == [b"one\n", b"two\n", b"three"]
    with place.store.open("empty") as stream:
        assert stream.read() == b""


@reading
def test_get_file_replaces_the_file_whole(place: Place, tmp_path: Path) -> None:
    place.fill(OBJECTS)
    target = tmp_path / "new folder" / "copy"
    for key in ("a.txt", "a/two", "a/one"):
        place.store.get_file(key, target)
        assert target.read_bytes() == OBJECTS[key]
    assert list(target.parent.iterdir()) == [target]


@reading
@pytest.mark.parametrize("key", REFUSED_KEYS)
def test_a_key_that_some_store_could_not_hold_is_refused(place: Place, key: str, tmp_path: Path) -> None:
    store = place.store
    operations: list[Callable[[], object]] = [
        lambda: store.read(key), lambda: store.open(key), lambda: store.info(key), lambda: store.exists(key),
        lambda: store.local_path(key), lambda: store.get_file(key, tmp_path / "x"),
    ]  # fmt: skip
    if not store.uri.startswith("memory"):
        operations += [lambda: store.put(key, b""), lambda: store.publish(key, b""), lambda: store.delete(key),
                       lambda: store.put_file(key, Path(__file__))]  # fmt: skip
    for operation in operations:
        with pytest.raises(StoreError, match="not a key"):
            operation()


@reading
@pytest.mark.parametrize("prefix", ["/", "../", "a//", "a/../"])
def test_a_prefix_that_leaves_the_store_is_refused(place: Place, prefix: str) -> None:
    with pytest.raises(StoreError, match="not a (key|prefix)"):
        list(place.store.list(prefix))


@reading
def test_a_store_travels_as_its_uri(place: Place) -> None:
    place.fill(OBJECTS)
    travelled = pickle.loads(pickle.dumps(place.store))
    assert travelled.uri == place.store.uri
    assert travelled.read("a/one") == OBJECTS["a/one"]
    assert os.environ.get("AWS_SECRET_ACCESS_KEY", "no secret").encode() not in pickle.dumps(place.store)


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@writing
def test_put_replaces(store: Store) -> None:
    for data in (b"first", b"second and longer", b"", b"3"):
        store.put("k", data)
        assert store.read("k") == data


@writing
def test_delete_twice(store: Store) -> None:
    store.put("d/k", b"1")
    store.delete("d/k")
    store.delete("d/k")
    store.delete("d")
    store.delete("never/was")
    assert not store.exists("d/k")
    assert list(store.list()) == []


@writing
def test_a_big_file_goes_up_and_comes_down(store: Store, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(secrets.token_bytes(MIB) * 63 + secrets.token_bytes(MIB + 1))
    store.put("big", b"smaller than before")
    store.put_file("big", source)
    assert store.info("big").size == 64 * MIB + 1
    store.get_file("big", copy)
    digests = [hashlib.file_digest(path.open("rb"), "sha256").hexdigest() for path in (source, copy)]
    assert digests[0] == digests[1]


@writing
def test_small_and_empty_files_go_up(store: Store, tmp_path: Path) -> None:
    for data in (b"small", b""):
        (tmp_path / "source").write_bytes(data)
        store.put_file("k", tmp_path / "source")
        assert store.read("k") == data


@writing
def test_a_missing_source_file_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no-such-source"):
        store.put_file("k", tmp_path / "no-such-source")
    assert list(store.list()) == []


@writing
def test_publish_once(store: Store) -> None:
    assert store.publish("receipts/r", b"first")
    assert store.publish("receipts/r", b"first")  # an attempt whose answer was lost asks again
    for other in (b"other", b"first and more", b"fir", b""):
        assert not store.publish("receipts/r", other)
    assert store.read("receipts/r") == b"first"
    assert [info.key for info in store.list()] == ["receipts/r"]
    store.delete("receipts/r")
    assert store.publish("receipts/r", b"")
    assert store.publish("receipts/r", b"")
    assert not store.publish("receipts/r", b"other")


RACER = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from lmbatch.store import open_store
store, racer = open_store(sys.argv[1]), sys.argv[2]
def publish(round, thread):
    start.wait()
    return store.publish(f"race/{round}", f"{racer}.{thread}.".encode() * 20_000)
with ThreadPoolExecutor(2) as pool:
    print("ready", flush=True)
    for line in sys.stdin:
        start = threading.Barrier(2)
        answers = pool.map(publish, [line.strip()] * 2, range(2))
        print([f"{racer}.{thread}" for thread, won in enumerate(answers) if won], flush=True)
"""


@writing
def test_exactly_one_of_eight_wins_and_nobody_sees_a_torn_object(store: Store) -> None:
    """Four processes with two threads each publish different bytes at the same moment; a reader looks on."""
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, store.uri, str(n)], stdin=-1, stdout=-1, text=True)
        for n in range(4)
    ]
    stop, seen = threading.Event(), []

    def look_on() -> None:
        while not stop.is_set():
            for number in range(4):
                try:
                    seen.append((number, store.read(f"race/{number}")))
                except ObjectNotFoundError:
                    continue

    try:
        assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 4
        with ThreadPoolExecutor(1) as pool:
            reader = pool.submit(look_on)
            for number in range(4):
                for racer in racers:
                    racer.stdin.write(f"{number}\n")
                    racer.stdin.flush()
                winners = [winner for racer in racers for winner in eval(racer.stdout.readline())]
                assert len(winners) == 1
                stands = store.read(f"race/{number}")
                assert stands == f"{winners[0]}.".encode() * 20_000
                seen.append((number, stands))
            stop.set()
            reader.result()
    finally:
        stop.set()
        for racer in racers:
            racer.stdin.close()
            racer.wait()
            racer.stdout.close()
    assert len(set(seen)) == 4  # for each object, every reader saw the same bytes


@writing
def test_a_reader_sees_the_old_bytes_or_the_new_ones(store: Store) -> None:
    size = 3 * MIB
    store.put("k", b"0" * size)
    stop = threading.Event()

    def look_on() -> set[bytes]:
        views = set()
        while not stop.is_set():
            data = store.read("k")
            views.add(data[:1] if data == data[:1] * size else b"torn")
        return views

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(look_on) for _ in range(2)]
        for number in range(1, 10):
            store.put("k", b"%d" % number * size)
        stop.set()
        assert b"torn" not in set.union(*(reader.result() for reader in readers))


@writing
def test_the_probe_passes_and_leaves_nothing(store: Store) -> None:
    check_publish_once(store)
    assert list(store.list()) == []


@pytest.mark.parametrize("uri", ["memory"], indirect=True)
def test_a_store_that_is_only_read_says_so(place: Place) -> None:
    place.fill(OBJECTS)
    store = place.store
    for operation in (lambda: store.put("k", b""), lambda: store.publish("k", b""), lambda: store.delete("k"),
                      lambda: store.put_file("k", Path(__file__))):  # fmt: skip
        with pytest.raises(StoreError, match="only read") as error:
            operation()
        assert "file://" in str(error.value.remedy)
    assert store.local_path("a.txt") is None
