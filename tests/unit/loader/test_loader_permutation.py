import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmbatch.loader.permutation import Permutation, round_keys


def permutation(size, seed=0, epoch=0, purpose="test", digest="d"):
    return Permutation(size, round_keys(digest, seed, epoch, purpose))


SIZES = [*range(1, 40), 63, 64, 65, 97, 127, 128, 129, 1000, 4093, 4096, 4097, 65_536, 65_537]


@pytest.mark.parametrize("size", SIZES)
def test_every_value_is_taken_once(size):
    assert np.array_equal(np.sort(permutation(size)(np.arange(size))), np.arange(size))


@given(st.integers(1, 3000), st.integers(-(2**63), 2**63), st.integers(0, 1000))
def test_a_bijection_for_any_size_and_key(size, seed, epoch):
    assert len(set(permutation(size, seed, epoch)(np.arange(size)).tolist())) == size


def test_a_huge_range_takes_no_memory_and_has_no_collisions():
    size = 2**61 - 1
    values = permutation(size)(np.arange(size - 20_000, size))
    assert len(np.unique(values)) == 20_000
    assert 0 <= values.min() <= values.max() < size
    assert abs(values.mean() / size - 0.5) < 0.02


def test_one_at_a_time_or_all_together_in_any_shape():
    whole = permutation(1000)(np.arange(1000))
    assert [int(permutation(1000)(n)) for n in (0, 7, 999)] == whole[[0, 7, 999]].tolist()
    assert np.array_equal(permutation(1000)(np.arange(1000).reshape(50, 20)), whole.reshape(50, 20))


def test_the_argument_is_left_alone():
    values = np.arange(100, dtype=np.uint64)
    permutation(100)(values)
    assert np.array_equal(values, np.arange(100))


def test_each_part_of_the_key_changes_the_permutation():
    keys = [("d", 0, 0, "x"), ("e", 0, 0, "x"), ("d", 1, 0, "x"), ("d", 0, 1, "x"), ("d", 0, 0, "y"), ("d", -1, 0, "x")]
    outcomes = {tuple(Permutation(1000, round_keys(*key))(np.arange(1000)).tolist()) for key in keys}
    assert len(outcomes) == len(keys)


def too_uneven(counts, categories):
    """Chi-square against equal frequencies, beyond what happens once in ten thousand (normal approximation)."""
    expected = sum(counts.values()) / categories
    chi2 = sum((count - expected) ** 2 / expected for count in counts.values())
    chi2 += (categories - len(counts)) * expected
    return chi2 > categories - 1 + 3.7 * math.sqrt(2 * (categories - 1)) + 4


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7])
def test_all_orders_of_a_few_are_equally_frequent(size):
    trials = 2000 if size < 7 else 6000
    counts = Counter(tuple(permutation(size, seed)(np.arange(size)).tolist()) for seed in range(trials))
    assert not too_uneven(counts, math.factorial(size))


@pytest.mark.parametrize("size", [100, 1000, 1024])
def test_each_value_may_go_anywhere_and_neighbours_part(size):
    places = np.array([permutation(size, seed)(np.array([0, 1, size - 1])) for seed in range(3000)]) * 10 // size
    for column in range(3):
        assert not too_uneven(Counter(places[:, column].tolist()), 10)
    assert not too_uneven(Counter(map(tuple, places[:, :2].tolist())), 100)


def test_the_order_can_never_change_silently():
    keys = round_keys("sha256:" + "0" * 64, 42, 3, "samples of window 0")
    assert keys[[0, 15]].tolist() == [17992847079760539590, 12513156155980783377]
    assert Permutation(10, keys)(np.arange(10)).tolist() == [9, 5, 6, 8, 2, 1, 7, 0, 4, 3]
    far = Permutation(10**12, keys)(np.array([0, 1, 10**12 - 1]))
    assert far.tolist() == [391519047354, 869565490507, 288483540797]


def plain(value, size, keys):
    """The construction once more, in whole numbers, as its documentation says it."""
    bits = (size - 1).bit_length()
    widths = [bits // 2, bits - bits // 2]
    high, low = value >> widths[1], value & ((1 << widths[1]) - 1)
    for key in keys:
        mixed = (low + key) % 2**64
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
        mixed ^= mixed >> 31
        high, low = low, high ^ (mixed % 2 ** widths[0])
        widths.reverse()
    value = (high << widths[1]) | low
    return value if value < size else plain(value, size, keys)


@given(st.integers(1, 2**61), st.integers(0, 2**61), st.integers(0, 99))
def test_numpy_computes_what_the_documentation_says(size, value, seed):
    keys = round_keys("d", seed, 0, "x")
    assert int(Permutation(size, keys)(value % size)) == plain(value % size, size, keys.tolist())
