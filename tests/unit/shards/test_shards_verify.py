import hashlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_helpers import EOD, stored_shard, with_bytes

from lmbatch.shards import encode_index, verify_shard
from lmbatch.shards import verify as verify_module
from lmbatch.shards.docs import SCHEMA

FACTS = {"dtype": "uint16", "largest_id": 99, "eod_id": EOD}
DOCUMENTS = [[10, 11, EOD], [12, EOD, 13, EOD], [EOD], [14, 15, 16, EOD]]
TOKENS = np.array([token for ids in DOCUMENTS for token in ids], "<u2")


@pytest.fixture
def shard(tmp_path):
    return stored_shard(tmp_path, DOCUMENTS)


@pytest.mark.parametrize("chunk", [2, 6, 8 * 2**20])
def test_a_right_shard_has_no_problems_whatever_the_chunks(shard, chunk, monkeypatch):
    monkeypatch.setattr(verify_module, "CHUNK_BYTES", chunk)
    assert verify_shard(*shard, **FACTS) == []


def test_a_shard_without_documents_is_right(tmp_path):
    assert verify_shard(*stored_shard(tmp_path, []), **FACTS) == []


def test_int32_shards_are_read_as_such(tmp_path):
    store, entry = stored_shard(tmp_path, [[70_000, EOD]], dtype="int32")
    assert verify_shard(store, entry, dtype="int32", largest_id=70_000, eod_id=EOD) == []


@given(part=st.sampled_from(["bin", "idx", "docs"]), at=st.integers(0, 10**6), flip=st.integers(1, 255))
@settings(max_examples=80, deadline=None)
def test_any_flipped_byte_is_reported(part, at, flip, tmp_path_factory):
    store, entry = stored_shard(tmp_path_factory.mktemp("shard"), DOCUMENTS)
    key = getattr(entry, part).key
    data = bytearray(store.read(key))
    data[at % len(data)] ^= flip
    store.put(key, bytes(data))
    problems = verify_shard(store, entry, **FACTS)
    assert any(f"{key}: sha256 is {hashlib.sha256(data).hexdigest()}" in problem for problem in problems)


@pytest.mark.parametrize("part", ["bin", "idx", "docs"])
def test_a_missing_file_is_a_finding(shard, part):
    store, entry = shard
    key = getattr(entry, part).key
    store.delete(key)
    assert f"{key}: is missing" in verify_shard(store, entry, **FACTS)


@pytest.mark.parametrize("part", ["bin", "idx", "docs"])
def test_a_truncated_file_is_reported_with_both_sizes(shard, part):
    store, entry = shard
    file = getattr(entry, part)
    store.put(file.key, store.read(file.key)[:-1])
    problems = verify_shard(store, entry, **FACTS)
    assert f"{file.key}: {file.size - 1} bytes, the manifest says {file.size}" in problems


@pytest.mark.parametrize("chunk", [4, 8 * 2**20])
def test_a_document_that_does_not_end_with_eod(shard, chunk, monkeypatch):
    monkeypatch.setattr(verify_module, "CHUNK_BYTES", chunk)
    store, entry = shard
    tokens = TOKENS.copy()
    tokens[[6, 11]] = 20  # the ends of documents 1 and 3
    problems = verify_shard(store, with_bytes(store, entry, "bin", tokens.tobytes()), **FACTS)
    sentence = "byte 12: sequence 1 ends with token 20, not with EOD (3) (2 such sequences)"
    assert problems == [f"{entry.bin.key}: {sentence}"]


@pytest.mark.parametrize("chunk", [4, 8 * 2**20])
def test_an_id_beyond_the_vocabulary(shard, chunk, monkeypatch):
    monkeypatch.setattr(verify_module, "CHUNK_BYTES", chunk)
    store, entry = shard
    tokens = TOKENS.copy()
    tokens[[3, 9]] = [100, 101]
    problems = verify_shard(store, with_bytes(store, entry, "bin", tokens.tobytes()), **FACTS)
    assert problems == [f"{entry.bin.key}: byte 6: token 100 is outside 0…99 (2 such tokens)"]


def test_a_negative_id_in_an_int32_shard(tmp_path):
    store, entry = stored_shard(tmp_path, [[10, EOD]], dtype="int32")
    entry = with_bytes(store, entry, "bin", np.array([-1, EOD], "<i4").tobytes())
    problems = verify_shard(store, entry, dtype="int32", largest_id=99, eod_id=EOD)
    assert problems == [f"{entry.bin.key}: byte 0: token -1 is outside 0…99 (1 such tokens)"]


def test_a_payload_that_its_index_does_not_describe(shard):
    store, entry = shard
    entry = with_bytes(store, entry, "bin", TOKENS[:-1].tobytes())
    assert verify_shard(store, entry, **FACTS) == [
        f"{entry.bin.key}: 22 bytes, but 12 tokens of dtype uint16 are not that long"
    ]


def test_half_a_token_at_the_end(shard):
    store, entry = shard
    entry = with_bytes(store, entry, "bin", TOKENS.tobytes() + b"\0")
    assert [problem for problem in verify_shard(store, entry, **FACTS) if "25 bytes" in problem]


def test_an_index_of_other_lengths(shard):
    store, entry = shard
    entry = with_bytes(store, entry, "idx", encode_index([3, 4, 1, 3, 1], "uint16"))
    problems = verify_shard(store, entry, **FACTS)
    assert f"{entry.idx.key}: byte 18: 5 documents, the manifest says 4" in problems
    assert any("sequence 3 ends with token 16" in problem for problem in problems)


def test_an_index_of_another_dtype_and_sum(shard):
    store, entry = shard
    entry = with_bytes(store, entry, "idx", encode_index([3, 4, 1, 5], "int32"))
    problems = verify_shard(store, entry, **FACTS)
    assert f"{entry.idx.key}: byte 17: dtype int32, the manifest says uint16" in problems
    assert f"{entry.idx.key}: its lengths sum to 13 tokens, the manifest says 12" in problems


def test_an_index_that_is_none_still_lets_the_payload_be_checked(shard):
    store, entry = shard
    tokens = TOKENS.copy()
    tokens[0] = 100
    entry = with_bytes(store, with_bytes(store, entry, "idx", b"nothing"), "bin", tokens.tobytes())
    problems = verify_shard(store, entry, **FACTS)
    assert any("ends inside its header" in problem for problem in problems)
    assert any("byte 0: token 100 is outside" in problem for problem in problems)


def docs_with(**columns):
    rows = {"piece": [0] * 4, "position": [0] * 4, "id": [None] * 4, "tokens": [3, 4, 1, 4]} | columns
    sink = io.BytesIO()
    pq.write_table(pa.table(rows, schema=SCHEMA), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (docs_with(tokens=[3, 4, 2, 4]), "row 2: 2 tokens, the index says 1"),
        (docs_with(piece=[0], position=[0], id=[None], tokens=[3]), "1 rows for 4 documents"),
        (docs_with(piece=[0] * 5, position=[0] * 5, id=[None] * 5, tokens=[3, 4, 1, 4, 9]), "5 rows for 4 documents"),
        (b"PAR1 but no Parquet PAR1", "not the documents of a shard"),
    ],
)
def test_origins_that_do_not_belong_to_the_documents(shard, data, what):
    store, entry = shard
    entry = with_bytes(store, entry, "docs", data)
    problems = verify_shard(store, entry, **FACTS)
    assert len(problems) == 1
    assert problems[0].startswith(f"{entry.docs.key}: ")
    assert what in problems[0]


def test_origins_with_other_columns(shard):
    store, entry = shard
    sink = io.BytesIO()
    pq.write_table(pa.table({"tokens": pa.array([3, 4, 1, 4], pa.int32())}), sink)
    problems = verify_shard(store, with_bytes(store, entry, "docs", sink.getvalue()), **FACTS)
    assert problems == [f"{entry.docs.key}: not the documents of a shard: its columns are tokens"]


def test_a_store_that_answers_in_crumbs(shard, monkeypatch):
    store, entry = shard

    class Crumbs(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 3) if size >= 0 else size)

    monkeypatch.setattr(type(store), "open", lambda self, key: Crumbs(self.read_all(key)), raising=True)
    monkeypatch.setattr(type(store), "read_all", lambda self, key: self.local_path(key).read_bytes(), raising=False)
    monkeypatch.setattr(verify_module, "_verify_docs", lambda *_: [])
    assert verify_shard(store, entry, **FACTS) == []
