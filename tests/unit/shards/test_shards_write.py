import errno
import hashlib
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_helpers import EOD, write_shard

from lmbatch.errors import ShardError, StoreError, StoreFullError, VocabularyError
from lmbatch.shards import DocumentBatch, Shard, ShardWriter, map_tokens, read_rows
from lmbatch.shards import docs as docs_module

FILES = ("s.bin", "s.idx", "s.docs.parquet")
DOCUMENTS = st.lists(st.lists(st.integers(0, 65535), min_size=1, max_size=30), max_size=20)


@given(documents=DOCUMENTS, dtype=st.sampled_from(["uint16", "int32"]))
@settings(max_examples=60, deadline=None)
def test_any_documents_are_read_as_they_were_written(documents, dtype, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shard")
    written = write_shard(folder, documents, dtype=dtype)
    shard = Shard.open(written.bin, written.idx)
    assert len(shard) == len(documents) == written.documents
    assert [shard.document(n).tolist() for n in range(len(shard))] == documents
    assert shard.tokens.tolist() == [token for ids in documents for token in ids]
    assert written.tokens == len(shard.tokens)


@given(documents=DOCUMENTS)
@settings(max_examples=20, deadline=None)
def test_the_same_documents_give_the_same_bytes(documents, tmp_path_factory):
    folders = [tmp_path_factory.mktemp("shard") for _ in range(2)]
    for folder in folders:
        write_shard(folder, documents)
    for name in FILES:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_sizes_and_hashes_are_those_of_the_files(tmp_path):
    written = write_shard(tmp_path, [[5, 6, EOD], [7, EOD]])
    entry = written.entry("train", "shards/train/x")
    for file, path in ((entry.bin, written.bin), (entry.idx, written.idx), (entry.docs, written.docs)):
        data = path.read_bytes()
        assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert [file.key for file in (entry.bin, entry.idx, entry.docs)] == [
        "shards/train/x.bin", "shards/train/x.idx", "shards/train/x.docs.parquet",
    ]  # fmt: skip
    assert (entry.tokens, entry.documents, entry.text_bytes) == (5, 2, 10)


def test_counts_grow_with_each_document(tmp_path):
    writer = ShardWriter(tmp_path, "s", "int32")
    writer.append(np.array([1, 2, EOD]), piece=0, position=0, id=None, text_bytes=9)
    assert (writer.tokens, writer.documents, writer.text_bytes, writer.bytes) == (3, 1, 9, 12)
    writer.abort()


def test_origins_are_kept_row_by_row_over_several_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(docs_module, "ROWS_PER_GROUP", 4)
    written = write_shard(tmp_path, [[n + 10, EOD] for n in range(10)])
    with written.docs.open("rb") as stream:
        rows = read_rows(stream, [9, 0, 4, 4], "docs")
    assert [(row.document, row.piece, row.position, row.id, row.tokens) for row in rows] == [
        (0, 0, 0, "文-0", 2), (4, 1, 400, "文-4", 2), (9, 0, 900, "文-9", 2),
    ]  # fmt: skip


def test_a_row_that_is_not_there_is_an_error(tmp_path):
    written = write_shard(tmp_path, [[EOD]])
    with written.docs.open("rb") as stream, pytest.raises(ShardError, match="documents 1 to 1, but it has 1 rows"):
        read_rows(stream, [1], "docs")


def test_an_identifier_that_utf8_cannot_hold_stays_readable(tmp_path):
    writer = ShardWriter(tmp_path, "s", "uint16")
    writer.append([EOD], piece=0, position=0, id="a\ud800b", text_bytes=0)
    with writer.close().docs.open("rb") as stream:
        assert read_rows(stream, [0], "docs")[0].id == "a\\ud800b"


def test_identifiers_and_their_absence_come_back(tmp_path):
    ids = [None, "a", None, "", "文-7", *map(str, range(20)), None]
    writer = ShardWriter(tmp_path, "s", "uint16")
    for number, name in enumerate(ids):
        writer.append([EOD], piece=number % 3, position=number * 7, id=name, text_bytes=0)
    with writer.close().docs.open("rb") as stream:
        rows = read_rows(stream, range(len(ids)), "docs")
    assert [row.id for row in rows] == ids
    assert [(row.piece, row.position) for row in rows] == [(number % 3, number * 7) for number in range(len(ids))]


def test_a_written_array_may_change_afterwards(tmp_path):
    writer = ShardWriter(tmp_path, "s", "uint16")
    ids = np.array([1, 2, EOD], dtype=np.uint16)
    writer.append(ids, piece=0, position=0, id=None, text_bytes=0)
    ids[:] = 7
    written = writer.close()
    assert Shard.open(written.bin, written.idx).tokens.tolist() == [1, 2, EOD]


def test_a_refused_document_leaves_no_trace(tmp_path):
    writer = ShardWriter(tmp_path, "s", "uint16")
    writer.append([1, EOD], piece=0, position=0, id="a", text_bytes=1)
    with pytest.raises(VocabularyError, match=r"s: document 1 \(id 'b', piece 2, position 77\): token 0 has id 70000"):
        writer.append([70000, EOD], piece=2, position=77, id="b", text_bytes=1)
    with pytest.raises(ShardError, match="document 1"):
        writer.append([], piece=2, position=77, id="b", text_bytes=1)
    writer.append([2, EOD], piece=0, position=1, id="c", text_bytes=1)
    written = writer.close()
    assert Shard.open(written.bin, written.idx).tokens.tolist() == [1, EOD, 2, EOD]


@pytest.mark.filterwarnings("error")
def test_abort_removes_the_files_and_closes_the_door(tmp_path):
    writer = ShardWriter(tmp_path, "s", "uint16")
    writer.append([EOD], piece=0, position=0, id=None, text_bytes=0)
    writer.abort()
    writer.abort()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ShardError, match="earlier write failed"):
        writer.close()


def test_the_remains_of_a_killed_attempt_are_overwritten(tmp_path):
    for name in FILES:
        (tmp_path / name).write_bytes(b"x" * 10_000)
    clean = write_shard(tmp_path / "clean", [[1, EOD]])
    again = write_shard(tmp_path, [[1, EOD]])
    assert again.bin.read_bytes() == clean.bin.read_bytes()
    assert again.docs_sha256 == clean.docs_sha256


def append_and_close(writer, ids, times):
    for number in range(times):
        writer.append(ids, piece=0, position=number, id="x", text_bytes=1)
    writer.close()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("error")
def test_a_full_disk_names_the_file(tmp_path, name):
    (tmp_path / name).symlink_to("/dev/full")  # every write fails with ENOSPC, as on a real full disk
    writer = ShardWriter(tmp_path, "s", "uint16")
    with pytest.raises(StoreFullError, match=name) as error:
        append_and_close(writer, [7] * 600_000 + [EOD], 3)
    assert isinstance(error.value.__cause__, OSError)
    assert error.value.__cause__.errno == errno.ENOSPC
    with pytest.raises(ShardError, match="earlier write failed"):
        writer.close()
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StoreError, match="nowhere"):
        ShardWriter(tmp_path / "nowhere", "s", "uint16")


def test_memory_does_not_grow_with_the_tokens(tmp_path):
    import tracemalloc

    ids = np.full(250_000, 7, np.uint16)
    writer = ShardWriter(tmp_path, "s", "uint16")
    tracemalloc.start()
    peaks = []
    for number in range(40):
        writer.append(ids, piece=0, position=number, id=None, text_bytes=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    writer.abort()
    assert peaks[-1] < 4 * ids.nbytes  # 20 MB were written
    assert all(early <= late for early, late in pairwise(peaks))


def test_a_payload_of_another_size_is_not_mapped(tmp_path):
    written = write_shard(tmp_path, [[1, EOD]])
    written.bin.write_bytes(b"123")
    with pytest.raises(ShardError, match="3 bytes, but 2 tokens of dtype uint16 take 4"):
        Shard.open(written.bin, written.idx)


def test_a_shard_without_documents(tmp_path):
    written = write_shard(tmp_path, [])
    shard = Shard.open(written.bin, written.idx)
    assert (len(shard), shard.tokens.tolist(), shard.tokens.dtype) == (0, [], np.dtype("<u2"))
    with pytest.raises(IndexError):
        shard.document(0)
    assert map_tokens(written.bin, "uint16", 0).size == 0


def test_mapped_tokens_cannot_be_written(tmp_path):
    written = write_shard(tmp_path, [[1, EOD]])
    with pytest.raises(ValueError, match="read-only"):
        Shard.open(written.bin, written.idx).tokens[0] = 9


@pytest.mark.parametrize(
    ("examples", "lengths"),
    [(True, None), (True, []), (True, [2, 1]), (True, [3, 2]), (True, [4, 0]), (True, [5, -1]), (False, [2, 2])],
)
def test_sequences_that_are_not_the_tokens_of_their_document_are_refused(tmp_path, examples, lengths):
    writer = ShardWriter(tmp_path, "s", "uint16", examples=examples)
    with pytest.raises(ShardError, match="are not its 4 tokens"):
        writer.append([5, 6, 7, 3], piece=0, position=0, id="a", text_bytes=1, lengths=lengths)
    assert (writer.documents, writer.sequences, writer.tokens) == (0, 0, 0)
    writer.abort()


def test_documents_and_sequences_are_counted_apart(tmp_path):
    writer = ShardWriter(tmp_path, "s", "uint16", examples=True)
    writer.append([5, 6, 7, 3], piece=0, position=0, id="a", text_bytes=1, lengths=[3, 1])
    writer.append([5], piece=0, position=0, id="b", text_bytes=1, lengths=[1])
    entry = writer.close().entry("train", "s")
    assert (entry.documents, entry.sequences, entry.tokens) == (2, 3, 5)


# ── several documents at once ────────────────────────────────────────────────────────────────────────────────────────
DOCUMENTS = [([5, 6, 3], [2, 1]), ([7], [1]), ([8, 9, 9, 3, 3, 3], [3, 3]), ([4, 4], [2])]


def batch_of(documents: list[tuple[list[int], list[int]]], examples: bool, kind: type = np.uint16) -> DocumentBatch:
    count = len(documents)
    return DocumentBatch(
        flat=np.array([token for ids, _ in documents for token in ids], kind),
        tokens=np.array([len(ids) for ids, _ in documents], np.int64),
        text_bytes=np.arange(1, count + 1),
        pieces=[0] * count,
        positions=[10 * number for number in range(count)],
        ids=[None if number % 2 else f"文-{number}" for number in range(count)],
        lengths=np.array([n for _, lengths in documents for n in lengths], np.int64) if examples else None,
        sequences=np.array([len(lengths) for _, lengths in documents], np.int64) if examples else None,
    )


@pytest.mark.parametrize("examples", [True, False])
@pytest.mark.parametrize("kind", [np.uint16, np.uint32, np.int64])
def test_a_batch_gives_the_bytes_of_its_documents_one_by_one(tmp_path, monkeypatch, examples, kind):
    monkeypatch.setattr(docs_module, "ROWS_PER_GROUP", 3)
    one, many = (ShardWriter(tmp_path, stem, "uint16", examples=examples) for stem in ("one", "many"))
    whole = batch_of(DOCUMENTS * 2, examples, kind)
    many.extend(whole.part(0, 5))
    many.extend(whole.part(5, 5))
    many.extend(whole.part(5, 8))
    for number, (ids, lengths) in enumerate(DOCUMENTS * 2):
        given = {"id": whole.ids[number], "text_bytes": number + 1, "lengths": lengths if examples else None}
        one.append(ids, piece=0, position=10 * number, **given)
    first, second = one.close(), many.close()
    assert first.entry("train", "s") == second.entry("train", "s")


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        (
            {"flat": np.array([1, 2, 70000, 3], np.uint32)},
            VocabularyError,
            r"document 1 .*position 10\): token 0",
        ),
        ({"flat": np.array([1, 2, -5, 3], np.int64)}, VocabularyError, "document 1 "),
        ({"tokens": np.array([4, 0])}, ShardError, "document 1 "),
        (
            {"lengths": np.array([3, 1]), "sequences": np.array([1, 1])},
            ShardError,
            "document 0 .* are not its 2",
        ),
        (
            {"lengths": np.array([2, 2, 0]), "sequences": np.array([1, 2])},
            ShardError,
            "document 1 .* are not its 2",
        ),
        ({"lengths": None, "sequences": None}, ShardError, "document 0 .* are not its 2"),
    ],
)
def test_a_batch_with_a_document_that_is_refused_names_it(tmp_path, changes, error, match):
    examples = "lengths" in changes
    good = batch_of([([1, 2], [2]), ([3, 4], [2])], examples)
    writer = ShardWriter(tmp_path, "s", "uint16", examples=examples)
    with pytest.raises(error, match=match):
        writer.extend(replace(good, **changes))
    assert writer.tokens in (0, 2, 4)
    writer.abort()
