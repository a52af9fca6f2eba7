"""What the store does when the network, the server, the disk or the process fails in the middle."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lmbatch.errors import ObjectNotFoundError, StoreError, StoreFullError, UnsafeStoreError
from lmbatch.store import Backoff, LocalStore, check_publish_once, open_store
from lmbatch.store.client import Limits
from lmbatch.store.s3 import S3Store
from support.careless_s3 import CarelessS3
from support.fault_proxy import FaultProxy
from support.scripts import ROOT, load_script

MIB = 2**20
QUICK = Limits(Backoff(attempts=4, base=0.01, cap=0.02), connect=2.0, silence=5.0, whole=20.0, inner_retries=0)
IMPATIENT = Limits(QUICK.backoff, connect=2.0, silence=0.3, whole=20.0, inner_retries=0)
PATIENT = Limits(Backoff(attempts=60, base=0.05, cap=0.2), connect=2.0, silence=5.0, whole=20.0, inner_retries=1)


@pytest.fixture
def proxy(s3_server, s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server.settings.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy
        assert proxy.pending == []  # every fault was met


def s3_store(uri: str, limits: Limits = QUICK) -> S3Store:
    parts = urlsplit(uri)
    return S3Store(parts.netloc, parts.path.strip("/"), limits=limits)


# ── the network ──────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("fault", ["503", "refused", "lost answer"])
def test_a_write_outlives_passing_faults(proxy: FaultProxy, s3_uri: str, fault: str, tmp_path: Path) -> None:
    store = s3_store(s3_uri)
    proxy.inject("PUT", fault, fault)
    store.put("k", b"data")
    assert store.read("k") == b"data"
    (tmp_path / "f").write_bytes(b"file")
    proxy.inject("PUT", fault, fault)
    store.put_file("k", tmp_path / "f")
    assert store.read("k") == b"file"
    proxy.inject("DELETE", fault)
    store.delete("k")
    assert not store.exists("k")


@pytest.mark.parametrize("fault", ["503", "refused", "truncated", "lost answer"])
def test_a_read_outlives_passing_faults(proxy: FaultProxy, s3_uri: str, fault: str) -> None:
    store, data = s3_store(s3_uri), os.urandom(MIB)
    store.put("k", data)
    proxy.inject("GET", fault, fault)
    assert store.read("k") == data
    proxy.inject("GET", fault)
    assert store.read("k", 1000, 500_000) == data[1000:500_000]
    proxy.inject("HEAD", "503")
    proxy.inject("GET", fault)
    with store.open("k") as stream:
        assert stream.read() == data
    proxy.inject("GET", fault)
    assert [info.key for info in store.list()] == ["k"]


def test_a_silent_server_is_given_up_and_asked_again(proxy: FaultProxy, s3_uri: str) -> None:
    store, data = s3_store(s3_uri, IMPATIENT), os.urandom(MIB)
    store.put("k", data)
    proxy.inject("GET", "stalled")
    assert store.read("k") == data
    assert not proxy.outlasted


def test_one_bad_part_does_not_repeat_the_upload(proxy: FaultProxy, s3_uri: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(os.urandom(MIB) * 40)
    store = s3_store(s3_uri, PATIENT)
    proxy.inject("PUT", "503")
    store.put_file("k", tmp_path / "f")
    assert proxy.requests.count("PUT") == 4  # three parts, one of them twice
    store.get_file("k", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "f").read_bytes()


@pytest.mark.parametrize("fault", ["flipped", "halved"])
@pytest.mark.parametrize("size", [1000, 40 * MIB])
def test_bytes_that_change_on_the_way_up_are_sent_again(
    proxy: FaultProxy, s3_uri: str, tmp_path: Path, fault: str, size: int
) -> None:
    """The server takes them without a word, although the request is signed with their SHA-256."""
    (tmp_path / "f").write_bytes(data := os.urandom(size))
    store = s3_store(s3_uri)
    proxy.inject("PUT", fault)
    store.put_file("file", tmp_path / "f")
    assert store.read("file") == data
    for write in (store.put, store.publish):
        proxy.inject("PUT", fault)
        write("bytes", data[:1000])
        assert store.read("bytes") == data[:1000]
        store.delete("bytes")
    assert proxy.pending == []


def test_bytes_that_never_arrive_unchanged_are_an_error(proxy: FaultProxy, s3_uri: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    store = s3_store(s3_uri)
    for write in (lambda: store.put_file("k", tmp_path / "f"), lambda: store.publish("once", b"0123456789")):
        proxy.inject("PUT", *["flipped"] * 12)
        with pytest.raises(StoreError, match="other bytes arrived than were sent"):
            write()
        proxy._faults.clear()
    assert not store.exists("once")  # or it would look as if another attempt had won


def test_a_failed_upload_leaves_the_old_object(proxy: FaultProxy, s3_uri: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(os.urandom(MIB) * 40)
    store = s3_store(s3_uri)
    store.put("k", b"old")
    proxy.inject("PUT", *["503"] * 12)
    # Of parts that are sent side by side one may be cut off in the middle by the refusal of another.
    with pytest.raises(StoreError, match="SlowDown|error sending request"):
        store.put_file("k", tmp_path / "f")
    proxy._faults.clear()  # how many parts were tried before the upload was given up is not fixed
    assert store.read("k") == b"old"
    assert [info.key for info in store.list()] == ["k"]


def test_the_log_tells_each_attempt_and_the_error_the_last_reason(proxy: FaultProxy, s3_uri: str, caplog) -> None:
    proxy.inject("PUT", "503", "503", "503", "503")
    with caplog.at_level(logging.DEBUG), pytest.raises(StoreError, match="503 SlowDown: Please reduce") as error:
        s3_store(s3_uri).put("k", b"data")
    assert f"{s3_uri}/k" in str(error.value)
    retries = [record.message for record in caplog.records if record.name == "lmbatch.store.retry"]
    assert [f"attempt {n} of 4" in message for n, message in enumerate(retries, start=2)] == [True] * 3
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in caplog.text + str(error.value)


def test_a_publish_whose_answer_was_lost_has_won(proxy: FaultProxy, s3_uri: str) -> None:
    store = s3_store(s3_uri)
    proxy.inject("PUT", "lost answer")
    assert store.publish("k", b"ours")
    assert not store.publish("k", b"theirs")
    proxy.inject("PUT", "lost answer")
    assert not store.publish("k", b"theirs")
    assert store.read("k") == b"ours"


def test_a_publish_that_never_arrived_is_not_claimed(proxy: FaultProxy, s3_uri: str) -> None:
    store = s3_store(s3_uri)
    proxy.inject("PUT", "503", "refused", "503", "refused")
    with pytest.raises(StoreError, match="could not publish"):
        store.publish("k", b"ours")
    assert not store.exists("k")


def test_an_object_replaced_under_a_reader_is_noticed(s3_uri: str) -> None:
    store, size = s3_store(s3_uri), 5 * MIB
    store.put("k", b"0" * size)
    with store.open("k") as stream:
        assert stream.read(10) == b"0" * 10
        store.put("k", b"1" * size)
        with pytest.raises(StoreError, match="replaced"):
            stream.read()


def test_no_server_at_all(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="Connection refused") as error:
        s3_store(s3_uri).put("k", b"1")
    assert "check the endpoint" in str(error.value.remedy)


# ── the server ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_server_that_is_killed_and_restarted_loses_nothing(tmp_path: Path, s3_uri: str, monkeypatch) -> None:
    server = load_script(ROOT / "cluster" / "s3_server.py").S3Server(tmp_path / "server")
    try:
        settings = server.start()
        for name, value in settings.environment.items():
            monkeypatch.setenv(name, value)
        store = s3_store(settings.uri + "/p", PATIENT)
        some = threading.Semaphore(0)

        def write(number: int) -> bool:
            store.put(f"objects/{number:03d}", b"%d" % number * 1000)
            won = store.publish(f"receipts/{number:03d}", b"%d" % number)
            some.release()
            return won

        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(write, number) for number in range(150)]
            for _ in range(40):
                some.acquire()
            server.kill()
            server.start()
            assert all(answer.result() for answer in answers)
        for number in range(150):
            assert store.read(f"objects/{number:03d}") == b"%d" % number * 1000
            assert store.read(f"receipts/{number:03d}") == b"%d" % number
        assert len(list(store.list("receipts/"))) == 150
    finally:
        server.kill()
        server.stop(wipe=True)


def test_a_store_that_ignores_conditions_is_refused(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with CarelessS3() as careless:
        monkeypatch.setenv("AWS_ENDPOINT_URL", careless.endpoint)
        store = s3_store(s3_uri)
        assert store.publish("k", b"1")
        assert store.publish("k", b"2")  # this is what makes it dangerous
        store.delete("k")
        with pytest.raises(UnsafeStoreError, match="If-None-Match") as error:
            check_publish_once(store)
        assert "AWS S3" in str(error.value.remedy)
        assert careless.objects == {}


# ── no space ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_full_server_is_named_as_such(proxy: FaultProxy, s3_uri: str) -> None:
    proxy.inject("PUT", "full", "full", "full", "full")
    with pytest.raises(StoreFullError, match="no space left on device") as error:
        s3_store(s3_uri).put("k", b"1")
    assert "make room" in str(error.value.remedy)


FULL_DISK = """
import resource, sys
from pathlib import Path
from lmbatch.errors import StoreFullError
from lmbatch.store import LocalStore
small, source = Path(sys.argv[1]), Path(sys.argv[2])
if sys.argv[3] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
store = LocalStore(small)
store.put("d/k", b"old")
big = source.read_bytes()
attempts = {
    "put": lambda: store.put("d/k", big), "publish": lambda: store.publish("d/new", big),
    "put_file": lambda: store.put_file("d/k", source),
    "get_file": lambda: LocalStore(source.parent).get_file(source.name, small / "d" / "copy"),
}
for name, attempt in attempts.items():
    try:
        attempt()
    except StoreFullError as error:
        assert str(small) in str(error) and "make room" in error.remedy, error
        print(name, "refused", type(error.__cause__).__name__, error.__cause__.errno)
assert store.read("d/k") == b"old"
assert [info.key for info in store.list()] == ["d/k"]
assert [path.name for path in (small / "d").iterdir()] == ["k"], "a temporary file was left"
store.put("d/k", b"new")
assert store.read("d/k") == b"new"
"""


@pytest.mark.parametrize("kind", ["mount", "limit"])
def test_a_full_disk_is_named_and_leaves_nothing_behind(tmp_path: Path, kind: str) -> None:
    source, small = tmp_path / "source", tmp_path / "small disk"
    source.write_bytes(secrets.token_bytes(2 * MIB))
    small.mkdir()
    command = [sys.executable, "-c", FULL_DISK, str(small), str(source), kind]
    if kind == "mount":
        command = on_small_disk(small, "1m", command) or [*command[:-1], "limit"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        [name, "refused"] for name in ("put", "publish", "put_file", "get_file")
    ]


def test_a_server_with_a_full_disk(tmp_path: Path, s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ROOT / "cluster" / "s3_server.py"
    state = tmp_path / "server"
    (state / "data").mkdir(parents=True)
    start = [sys.executable, str(script), "start", "--state", str(state)]
    command = on_small_disk(state / "data", "160m", start)
    server = load_script(script).S3Server(state)
    try:
        subprocess.run(command or start, check=True, capture_output=True, preexec_fn=None if command else small_files)
        for name, value in server.settings.environment.items():
            monkeypatch.setenv(name, value)
        store, written = s3_store(server.settings.uri), []

        def fill() -> None:
            for number in range(40):
                store.put(f"{number:02d}", os.urandom(8 * MIB))
                written.append(f"{number:02d}")

        with pytest.raises(StoreError, match="500 InternalError") as error:
            fill()
        assert "free space" in str(error.value.remedy)
        assert [info.key for info in store.list()] == written
        assert all(len(store.read(key)) == 8 * MIB for key in written[:2])
    finally:
        server.kill()
        server.stop(wipe=True)


def on_small_disk(folder: Path, size: str, command: list[str]) -> list[str] | None:
    """The command with a tmpfs of that size at ``folder``, in a mount namespace of its own; None if that is refused."""
    for unshare in (["unshare", "-m"], ["unshare", "-rm"]):
        script = f'mount -t tmpfs -o size={size} none "$0" && exec "$@"'
        if subprocess.run([*unshare, "sh", "-c", script, folder, "true"], check=False, capture_output=True).returncode:
            continue
        return [*unshare, "sh", "-c", script, str(folder), *command]
    return None


def small_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * MIB, 64 * MIB))


# ── the process ──────────────────────────────────────────────────────────────────────────────────────────────────────
KILLED = """
import os, signal, sys
from pathlib import Path
from lmbatch.store import LocalStore
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
store = LocalStore(Path(sys.argv[1]))
verb, moment = sys.argv[2], sys.argv[3]
setattr(os, moment, die)
if verb == "put_file":
    store.put_file("d/k", Path(sys.executable))
else:
    getattr(store, verb)("d/k", b"new" * 1_000_000)
"""


@pytest.mark.parametrize("verb", ["put", "put_file", "publish"])
def test_a_process_killed_before_the_rename_changes_nothing(tmp_path: Path, verb: str) -> None:
    store = LocalStore(tmp_path)
    store.put("d/old", b"old")
    if verb != "publish":
        store.put("d/k", b"old")
    before = [(info.key, store.read(info.key)) for info in store.list()]
    moment = "link" if verb == "publish" else "replace"
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), verb, moment], check=False)
    assert done.returncode == -9
    assert len(list((tmp_path / "d").iterdir())) == len(before) + 1  # an unfinished file lies there …
    assert [(info.key, store.read(info.key)) for info in store.list()] == before  # … and is not seen
    assert store.publish("d/fresh", b"1")


def test_a_forked_child_is_told_instead_of_hanging(s3_uri: str) -> None:
    store = open_store(s3_uri)
    store.put("k", b"1")
    read_end, write_end = os.pipe()
    if (child := os.fork()) == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # should it hang after all, it does not outlive the test
        try:
            store.read("k")
            os.write(write_end, b"read it")
        except StoreError as error:
            os.write(write_end, str(error).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    assert "forked" in said
    assert "spawn" in said
    with pytest.raises(ObjectNotFoundError):
        store.read("other")  # the parent goes on
