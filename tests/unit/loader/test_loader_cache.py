import hashlib
import logging
import multiprocessing
import os
import signal
import threading
import time

import pytest
from loader_helpers import bytes_in_cache

from lmbatch.errors import ConfigError, ObjectNotFoundError, ShardError, StoreFullError
from lmbatch.loader import ShardCache
from lmbatch.loader import check as check_module
from lmbatch.store import FileEntry, LocalStore
from support.remote_store import RemoteStore

SIZE = 1000
fork = multiprocessing.get_context("fork")


def entry_of(number: int, size: int = SIZE) -> FileEntry:
    data = bytes([number]) * size
    return FileEntry(key=f"shards/{number}.bin", size=size, sha256=hashlib.sha256(data).hexdigest())


@pytest.fixture
def remote(tmp_path):
    store = RemoteStore(tmp_path / "store")
    for number in range(8):
        store.put(f"shards/{number}.bin", bytes([number]) * SIZE)
    return store


def make_cache(store, tmp_path, files=3):
    return ShardCache(store, tmp_path / "cache", files * SIZE)


def cached(tmp_path):
    return {path.name for path in (tmp_path / "cache" / "shards").iterdir()}


def names(*numbers):
    return {entry_of(number).sha256 for number in numbers}


def incoming(tmp_path):
    return list((tmp_path / "cache" / "incoming").iterdir())


def test_a_shard_is_fetched_once_and_kept_for_the_next_run(remote, tmp_path):
    for _ in range(2):
        cache = make_cache(remote, tmp_path)
        assert cache.path(entry_of(1)).read_bytes() == bytes([1]) * SIZE
        assert cache.path(entry_of(1)).read_bytes() == bytes([1]) * SIZE
        cache.close()
    assert remote.fetched == ["shards/1.bin"]
    assert incoming(tmp_path) == []


def test_a_flipped_byte_in_the_store_is_never_served(remote, tmp_path):
    data = bytearray(bytes([2]) * SIZE)
    data[500] ^= 1
    remote.put("shards/2.bin", bytes(data))
    cache = make_cache(remote, tmp_path)
    for _ in range(2):
        with pytest.raises(ShardError) as error:
            cache.path(entry_of(2))
        message = error.value.message
        assert "shards/2.bin" in message
        assert entry_of(2).sha256 in message
        assert hashlib.sha256(data).hexdigest() in message
        assert error.value.remedy
    assert cached(tmp_path) == set()
    assert incoming(tmp_path) == []


def test_the_least_recently_used_goes_first(remote, tmp_path):
    cache = make_cache(remote, tmp_path)
    for age, number in ((30, 0), (20, 1), (10, 2)):
        stamp = time.time() - age
        os.utime(cache.path(entry_of(number)), (stamp, stamp))
    cache.path(entry_of(0))  # used again: now the youngest
    cache.path(entry_of(3))
    assert cached(tmp_path) == names(0, 2, 3)
    cache.path(entry_of(4))
    assert cached(tmp_path) == names(0, 3, 4)


def test_it_never_grows_beyond_its_limit(remote, tmp_path):
    cache = make_cache(remote, tmp_path)

    def look(key, path):
        sizes.append(bytes_in_cache(tmp_path / "cache"))

    sizes: list[int] = []
    remote.before = look
    for number in [*range(8), *range(8)]:
        cache.path(entry_of(number))
    assert len(sizes) == 16
    assert max(sizes) == 3 * SIZE


def test_what_is_held_is_not_evicted(remote, tmp_path):
    cache = make_cache(remote, tmp_path)
    cache.hold([entry_of(0), entry_of(1)])
    for number in (0, 1, 2, 3, 4):
        cache.path(entry_of(number))
    assert cached(tmp_path) == names(0, 1, 4)
    cache.hold([entry_of(4)])
    cache.path(entry_of(5))
    assert cached(tmp_path) == names(1, 4, 5)


def test_what_another_process_holds_is_not_evicted_until_it_closes(remote, tmp_path):
    other, cache = make_cache(remote, tmp_path), make_cache(remote, tmp_path)
    other.hold([entry_of(0), entry_of(1)])
    for number in (0, 1, 2, 3):
        cache.path(entry_of(number))
    assert cached(tmp_path) == names(0, 1, 3)
    other.close()
    for number in (4, 5):
        cache.path(entry_of(number))
    assert cached(tmp_path) == names(3, 4, 5)


def test_no_room_because_everything_is_in_use(remote, tmp_path):
    other, cache = make_cache(remote, tmp_path), make_cache(remote, tmp_path)
    held = [entry_of(number) for number in range(3)]
    other.hold(held)
    for entry in held:
        other.path(entry)
    with pytest.raises(StoreFullError, match=r"no room for shards/3.bin .* all but 0 bytes are in use") as error:
        cache.path(entry_of(3))
    assert "max_bytes" in error.value.remedy
    assert cached(tmp_path) == names(0, 1, 2)


def test_a_window_larger_than_the_cache(remote, tmp_path):
    with pytest.raises(ConfigError, match=r"4 shards of 4000 bytes .*data.cache.max_bytes is 3000") as error:
        make_cache(remote, tmp_path).hold([entry_of(number) for number in range(4)])
    assert "data.window_shards" in error.value.remedy


def test_of_what_is_upcoming_as_much_is_held_as_fits(remote, tmp_path):
    upcoming = [entry_of(1), entry_of(2, 5000), entry_of(3), entry_of(4)]
    assert make_cache(remote, tmp_path).hold([entry_of(0)], upcoming) == [entry_of(1), entry_of(3)]


def killed_while(work, *arguments):
    """Runs ``work`` in a process of its own and kills it -9 once it says that it is where it should be."""
    reached = fork.Event()
    process = fork.Process(target=work, args=(reached, *arguments))
    process.start()
    assert reached.wait(30)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def fetch_and_hang(reached, root, tmp_path):
    def hang(key, path):
        path.write_bytes(b"half")
        reached.set()
        signal.pause()

    cache = make_cache(RemoteStore(root, hang), tmp_path)
    cache.hold([entry_of(0), entry_of(1), entry_of(2)])
    cache.path(entry_of(0))


def test_what_a_killed_process_left_is_cleaned_and_counts_for_nothing(remote, tmp_path):
    killed_while(fetch_and_hang, remote.folder.root, tmp_path)
    assert len(incoming(tmp_path)) == 1
    cache = make_cache(remote, tmp_path)
    assert incoming(tmp_path) == []
    for number in range(6):  # its pins would leave no room, its reservation too little
        assert cache.path(entry_of(number)).read_bytes() == bytes([number]) * SIZE
    assert len(list((tmp_path / "cache" / "pins").iterdir())) == 1


def test_a_process_that_stays_cleans_up_after_one_that_was_killed(remote, tmp_path):
    cache = make_cache(remote, tmp_path)
    killed_while(fetch_and_hang, remote.folder.root, tmp_path)
    for number in (3, 4, 5):
        cache.path(entry_of(number))
    assert cached(tmp_path) == names(3, 4, 5)
    assert incoming(tmp_path) == []


def fetch_all(root, tmp_path, barrier, fetched):
    store = RemoteStore(root)
    cache = make_cache(store, tmp_path, files=8)
    barrier.wait()
    for number in range(8):
        assert cache.path(entry_of(number)).read_bytes() == bytes([number]) * SIZE
    fetched.put(store.fetched)


def test_several_processes_fetch_each_shard_once(remote, tmp_path):
    barrier, fetched = fork.Barrier(4), fork.Queue()
    workers = [fork.Process(target=fetch_all, args=(remote.folder.root, tmp_path, barrier, fetched)) for _ in range(4)]
    for worker in workers:
        worker.start()
    keys = [key for _ in workers for key in fetched.get(timeout=60)]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert sorted(keys) == [f"shards/{number}.bin" for number in range(8)]


def test_a_second_thread_waits_for_the_first_ones_download(remote, tmp_path):
    started, go = threading.Event(), threading.Event()

    def wait(key, path):
        started.set()
        assert go.wait(30)

    remote.before = wait
    cache = make_cache(remote, tmp_path)
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(cache.path(entry_of(1)).read_bytes())) for _ in range(2)]
    threads[0].start()
    assert started.wait(30)
    threads[1].start()
    go.set()
    for thread in threads:
        thread.join(30)
    assert results == [bytes([1]) * SIZE] * 2
    assert remote.fetched == ["shards/1.bin"]


def test_a_download_that_nobody_needs_any_more_is_waited_for_and_then_makes_room(remote, tmp_path):
    """As when a window begins while the prefetching of the one before still runs, in a cache of one window."""
    started, go = threading.Event(), threading.Event()

    def wait(key, path):
        if key == "shards/0.bin":
            started.set()
            assert go.wait(30)

    remote.before = wait
    cache = make_cache(remote, tmp_path)
    late = threading.Thread(target=cache.path, args=(entry_of(0),))
    late.start()
    assert started.wait(30)
    window = [entry_of(number) for number in (1, 2, 3)]
    cache.hold(window)
    cache.path(window[0])
    cache.path(window[1])
    threading.Timer(0.05, go.set).start()
    cache.path(window[2])
    late.join(30)
    assert cached(tmp_path) == names(1, 2, 3)


def test_an_error_of_the_store_leaves_no_reservation(remote, tmp_path):
    def fail(key, path):
        raise ObjectNotFoundError("gone")

    remote.before = fail
    with pytest.raises(ObjectNotFoundError):
        make_cache(remote, tmp_path).path(entry_of(1))
    assert incoming(tmp_path) == []


def test_evictions_are_logged(remote, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    cache = make_cache(remote, tmp_path, files=1)
    cache.path(entry_of(0))
    cache.path(entry_of(1))
    assert entry_of(0).sha256 in caplog.text


# ── files of a local store ───────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def local(tmp_path):
    store = LocalStore(tmp_path / "store")
    store.put("shards/1.bin", bytes([1]) * SIZE)
    return store


@pytest.fixture
def checked(monkeypatch):
    done = []
    check = check_module.check_file
    monkeypatch.setattr(check_module, "check_file", lambda *args: done.append(args[0].name) or check(*args))
    return done


def test_a_local_file_is_used_in_place_and_checked_once(local, tmp_path, checked):
    for _ in range(3):
        cache = make_cache(local, tmp_path, files=0)
        cache.hold([entry_of(1)])
        assert cache.path(entry_of(1)) == local.local_path("shards/1.bin")
        cache.close()
    assert checked == ["1.bin"]
    assert cached(tmp_path) == set()


def test_a_local_file_that_was_touched_is_checked_again(local, tmp_path, checked):
    path = make_cache(local, tmp_path).path(entry_of(1))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    make_cache(local, tmp_path).path(entry_of(1))
    assert checked == ["1.bin"] * 2


def test_a_local_file_of_the_same_age_that_should_be_another_is_checked_again(local, tmp_path, checked):
    cache = make_cache(local, tmp_path)
    cache.path(entry_of(1))
    with pytest.raises(ShardError):
        cache.path(entry_of(2).model_copy(update={"key": "shards/1.bin"}))
    assert checked == ["1.bin"] * 2


def test_a_flipped_byte_in_a_local_file(local, tmp_path):
    path = local.local_path("shards/1.bin")
    path.write_bytes(bytes([1]) * (SIZE - 1) + b"\0")
    for _ in range(2):
        with pytest.raises(ShardError, match=entry_of(1).sha256):
            make_cache(local, tmp_path).path(entry_of(1))


def test_a_damaged_stamp_is_no_stamp(local, tmp_path, checked):
    make_cache(local, tmp_path).path(entry_of(1))
    for stamp in (tmp_path / "cache" / "verified").iterdir():
        stamp.write_bytes(b"{")
    make_cache(local, tmp_path).path(entry_of(1))
    assert checked == ["1.bin"] * 2


def test_a_local_file_that_is_missing(local, tmp_path):
    with pytest.raises(ObjectNotFoundError, match=r"shards/7.bin"):
        make_cache(local, tmp_path).path(entry_of(7))
