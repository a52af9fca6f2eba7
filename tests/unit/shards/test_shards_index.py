import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmbatch.errors import ShardError
from lmbatch.shards import encode_index, map_index, parse_index
from lmbatch.shards.index import HEADER, MAGIC

GOOD = encode_index([3, 1, 4], "uint16")
LENGTHS_AT, POINTERS_AT, DOCUMENTS_AT = 34, 34 + 3 * 4, 34 + 3 * 12


def test_the_layout_byte_by_byte():
    expected = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, 3, 4)
    expected += struct.pack("<3i", 3, 1, 4) + struct.pack("<3q", 0, 6, 8) + struct.pack("<4q", 0, 1, 2, 3)
    assert expected == GOOD


def test_int32_has_code_4_and_wider_pointers():
    data = encode_index([3, 1], "int32")
    assert data[17] == 4
    assert parse_index(data, "x").pointers.tolist() == [0, 12]


@given(st.lists(st.integers(1, 2**20), max_size=50), st.sampled_from(["uint16", "int32"]))
def test_parse_gives_back_what_was_encoded(lengths, dtype):
    index = parse_index(encode_index(lengths, dtype), "x")
    assert (index.dtype, index.lengths.tolist()) == (dtype, lengths)
    assert index.documents == len(lengths)
    assert index.tokens == sum(lengths)
    assert index.starts().tolist() == [sum(lengths[:n]) for n in range(len(lengths))]


def test_more_tokens_than_32_bits_can_count():
    index = parse_index(encode_index([2**31 - 1, 2**31 - 1, 1], "int32"), "x")
    assert index.tokens == 2**32 - 1
    assert index.pointers.tolist() == [0, 4 * (2**31 - 1), 8 * (2**31 - 1)]


def patched(at: int, data: bytes) -> bytes:
    return GOOD[:at] + data + GOOD[at + len(data) :]


@pytest.mark.parametrize(
    ("data", "byte", "what"),
    [
        (patched(0, b"X"), 0, "begins with"),
        (patched(9, struct.pack("<Q", 2)), 9, "version 2"),
        (patched(17, b"\x05"), 17, "dtype code 5"),
        (patched(18, struct.pack("<Q", 2)), 26, "4 document indices for 2 sequences"),
        (patched(26, struct.pack("<Q", 9)), 26, "9 document indices"),
        (patched(18, struct.pack("<QQ", 2**63, 2**63 + 1)), len(GOOD), "sequences take"),
        (GOOD[:20], 20, "ends inside its header"),
        (b"", 0, "ends inside its header"),
        (GOOD[:-1], len(GOOD) - 1, "sequences take"),
        (GOOD + b"\0", len(GOOD) + 1, "sequences take"),
        (patched(LENGTHS_AT + 4, struct.pack("<i", -1)), LENGTHS_AT + 4, "tokens in sequence 1: -1"),
        (patched(LENGTHS_AT, struct.pack("<i", 0)), LENGTHS_AT, "tokens in sequence 0: 0"),
        (patched(LENGTHS_AT, struct.pack("<i", 5)), POINTERS_AT + 8, "pointer of sequence 1: 6"),
        (patched(POINTERS_AT + 16, struct.pack("<q", 7)), POINTERS_AT + 16, "pointer of sequence 2: 7"),
        (patched(DOCUMENTS_AT + 24, struct.pack("<q", 2)), DOCUMENTS_AT + 24, "document index 3: 2"),
    ],
)
def test_each_kind_of_damage_is_refused_with_its_byte(data, byte, what):
    with pytest.raises(ShardError) as error:
        parse_index(data, "s3://b/x.idx")
    assert f"s3://b/x.idx: byte {byte}: " in error.value.message
    assert what in error.value.message
    assert error.value.remedy


@pytest.mark.parametrize(
    ("firsts", "number"), [([0, 2], None), ([0], None), ([1, 2], 0), ([0, 0], 1), ([0, 2, 1], 2), ([0, 3], 2)]
)
def test_documents_of_several_sequences(firsts, number):
    data = encode_index([3, 1, 4], "uint16", firsts)
    if number is not None:
        with pytest.raises(ShardError, match=f"byte {DOCUMENTS_AT + 8 * number}: document index {number}"):
            parse_index(data, "x")
        return
    index = parse_index(data, "x")
    ends = [*firsts[1:], 3]
    assert (index.documents, index.sequences) == (len(firsts), 3)
    assert index.starts().tolist() == [sum([3, 1, 4][:first]) for first in firsts]
    assert index.document_tokens().tolist() == [sum([3, 1, 4][a:b]) for a, b in zip(firsts, ends, strict=True)]


def test_an_end_that_is_not_the_number_of_sequences_is_refused():
    data = patched(DOCUMENTS_AT + 24, struct.pack("<q", 4))
    with pytest.raises(ShardError, match="document index 3: 4"):
        parse_index(data, "x")


def test_a_mapped_index_is_the_parsed_one(tmp_path):
    path = tmp_path / "s.idx"
    path.write_bytes(encode_index([3, 1, 4], "int32", [0, 2]))
    mapped, parsed = map_index(path), parse_index(path.read_bytes(), "x")
    for name in ("lengths", "pointers", "firsts"):
        assert getattr(mapped, name).tolist() == getattr(parsed, name).tolist()
    assert (mapped.dtype, mapped.place(2)) == ("int32", (4, 4))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ShardError, match="sequences take"):
        map_index(path)


def test_the_header_is_34_bytes():
    assert HEADER.size == 34
    assert len(MAGIC) == 9
    assert np.dtype("<i8").itemsize == 8
