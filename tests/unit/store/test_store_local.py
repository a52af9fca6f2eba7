import os
import stat
from pathlib import Path

import pytest

from lmbatch.errors import ObjectNotFoundError, StoreAccessError, StoreError, UnsafeStoreError
from lmbatch.store import LocalStore, check_publish_once


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "root")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The order in which files and folders are made durable, and names are given."""
    seen: list[str] = []
    real = {name: getattr(os, name) for name in ("fsync", "replace", "link")}

    def fsync(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        seen.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}" if folder else "fsync file")
        real["fsync"](descriptor)

    def renaming(name: str):
        return lambda *args, **kwargs: (seen.append(name), real[name](*args, **kwargs))[1]

    monkeypatch.setattr(os, "fsync", fsync)
    for name in ("replace", "link"):
        monkeypatch.setattr(os, name, renaming(name))
    return seen


def test_bytes_reach_the_disk_before_the_name_and_the_name_before_the_return(
    store: LocalStore, events: list[str], tmp_path: Path
) -> None:
    folders = [f"fsync {tmp_path.name}", "fsync root", "fsync a"]
    store.put("a/b/k", b"1")
    assert events == [*folders, "fsync file", "replace", "fsync b"]
    events.clear()
    store.put_file("a/b/k", Path(__file__))
    assert events == ["fsync file", "replace", "fsync b"]
    events.clear()
    assert store.publish("a/b/p", b"1")
    assert events == ["fsync file", "link", "fsync b"]
    events.clear()
    assert store.publish("a/b/p", b"1")  # the earlier link may not be durable yet
    assert events == ["fsync file", "link", "fsync b"]
    events.clear()
    store.delete("a/b/p")
    assert events == ["fsync b"]
    events.clear()
    store.get_file("a/b/k", tmp_path / "copy")
    assert events == ["fsync file", "replace", f"fsync {tmp_path.name}"]


def test_files_get_the_usual_permissions(store: LocalStore) -> None:
    before = os.umask(0o027)
    try:
        store.put("put", b"1")
        store.publish("published", b"1")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(store.local_path(key).stat().st_mode) for key in ("put", "published")} == {0o640}


def test_unfinished_files_of_killed_processes_are_not_listed(store: LocalStore) -> None:
    store.put("a/k", b"1")
    (store.root / "a" / ".lmbatch-tmp-0123").write_bytes(b"half")
    assert [info.key for info in store.list()] == ["a/k"]


def test_links_are_followed_but_not_round_and_round(store: LocalStore, tmp_path: Path, caplog) -> None:
    store.put("a/k", b"1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_bytes(b"22")
    (store.root / "link").symlink_to(tmp_path / "elsewhere")
    (store.root / "a" / "loop").symlink_to(store.root)
    (store.root / "a" / "dangling").symlink_to("nowhere")
    assert [(info.key, info.size) for info in store.list()] == [("a/k", 1), ("link/x", 2)]
    assert "dangling leads nowhere" in caplog.text


def test_a_name_that_is_not_utf8_is_shown(store: LocalStore) -> None:
    store.put("k", b"1")
    (store.root / os.fsdecode("语料".encode("gbk"))).write_bytes(b"1")
    with pytest.raises(StoreError, match=r"\\xd3") as error:
        list(store.list())
    assert "convmv" in str(error.value.remedy)


def test_a_root_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1")
    store = LocalStore(tmp_path / "f")
    with pytest.raises(StoreError, match="is a file"):
        list(store.list())
    with pytest.raises(StoreError, match="could not write"):
        store.put("k", b"1")
    assert not store.exists("k")


def test_folders_are_no_objects(store: LocalStore) -> None:
    store.put("a/k", b"1")
    for operation in (store.read, store.open, store.info):
        with pytest.raises(ObjectNotFoundError):
            operation("a")
    store.delete("a")
    assert store.read("a/k") == b"1"
    with pytest.raises(StoreError, match="could not write"):
        store.put("a", b"1")


def test_a_read_only_place_is_named(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    store.put("k", b"1")
    monkeypatch.setattr(os, "open", refuse)  # root is refused nothing
    with pytest.raises(StoreAccessError, match="could not write .*Permission denied"):
        store.put("k", b"2")


def test_a_file_that_shrinks_under_the_reader_is_noticed(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("k", b"0123456789")
    real = os.fstat

    def larger(descriptor: int) -> os.stat_result:
        values = list(real(descriptor))
        values[6] = 20 if stat.S_ISREG(values[0]) else values[6]
        return os.stat_result(values)

    monkeypatch.setattr("lmbatch.store.local.os.fstat", larger)
    with pytest.raises(StoreError, match="10 bytes came"):
        store.read("k")


def test_a_file_system_without_hard_links_is_refused(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(UnsafeStoreError, match="hard links"):
        store.publish("k", b"1")
    assert list(store.list()) == []


class Overwriting(LocalStore):
    """Ignores the condition altogether."""

    def publish(self, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True


class Racy(LocalStore):
    """Looks first and writes then: right for one writer, wrong for two."""

    def publish(self, key: str, data: bytes) -> bool:
        if "race" in key:
            self.put(key, data)
            return True
        return super().publish(key, data)


@pytest.mark.parametrize(("kind", "finding"), [(Overwriting, "replaced the first"), (Racy, "4 of 4")])
def test_the_probe_finds_stores_that_do_not_keep_the_promise(tmp_path: Path, kind, finding: str) -> None:
    store = kind(tmp_path)
    with pytest.raises(UnsafeStoreError, match=finding):
        check_publish_once(store)
    assert list(store.list()) == []
