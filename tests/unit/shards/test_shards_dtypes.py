import numpy as np
import pytest

from lmbatch.errors import ShardError, VocabularyError
from lmbatch.shards import DTYPES, dtype_for
from lmbatch.shards.dtypes import as_tokens


@pytest.mark.parametrize(
    ("largest", "name"), [(0, "uint16"), (65535, "uint16"), (65536, "int32"), (2**31 - 1, "int32")]
)
def test_the_narrowest_dtype_that_holds_the_largest_id(largest, name):
    assert dtype_for(largest) == name


@pytest.mark.parametrize("largest", [-1, 2**31])
def test_an_id_that_no_dtype_holds(largest):
    with pytest.raises(VocabularyError, match=str(largest)):
        dtype_for(largest)


def test_tokens_are_little_endian_whatever_the_machine():
    assert [dtype.str for dtype in DTYPES.values()] == ["<u2", "<i4"]


@pytest.mark.parametrize(
    ("ids", "dtype", "culprit"),
    [
        ([1, 65536, 2], "uint16", "token 1 has id 65536"),
        ([1, 2, -1], "uint16", "token 2 has id -1"),
        ([-5], "int32", "token 0 has id -5"),
        ([0, 2**31], "int32", "token 1 has id 2147483648"),
        ([2**70], "int32", f"token 0 has id {2**70}"),
        ([1.0, 2.5], "uint16", "token 0 has id 1.0"),
        ([None, 1], "uint16", "token 0 has id None"),
        (np.array([70000], dtype=np.int64), "uint16", "token 0 has id 70000"),
        (np.array([2**64 - 1], dtype=np.uint64), "int32", f"token 0 has id {2**64 - 1}"),
    ],
)
def test_an_id_that_does_not_fit_is_named_with_dtype_and_document(ids, dtype, culprit):
    with pytest.raises(VocabularyError) as error:
        as_tokens(ids, dtype, "document 7")
    assert culprit in error.value.message
    assert dtype in error.value.message
    assert "document 7" in error.value.message
    assert error.value.remedy


def test_the_limits_themselves_fit():
    assert as_tokens([0, 65535], "uint16", "d").tolist() == [0, 65535]
    assert as_tokens([0, 2**31 - 1], "int32", "d").tolist() == [0, 2**31 - 1]


@pytest.mark.parametrize("ids", [[], np.empty(0, np.int64), [[1, 2], [3, 4]]])
def test_a_document_is_a_list_of_one_id_or_more(ids):
    with pytest.raises(ShardError, match="document 7"):
        as_tokens(ids, "uint16", "document 7")


def test_an_unknown_dtype():
    with pytest.raises(ShardError, match="int8"):
        as_tokens([1], "int8", "d")
