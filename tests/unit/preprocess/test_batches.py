"""Documents that are written together: runs of one split, shards that fill up, counts and samples as one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lmbatch.preprocess.batches import runs, that_fit
from lmbatch.preprocess.profile.histogram import count_all, lower_end
from lmbatch.preprocess.profile.samples import Reservoir, draw_of, draws_of
from lmbatch.preprocess.profile.schema import Sample

BUCKET = ("kept", "")


@given(st.lists(st.sampled_from("ab"), max_size=9))
def test_runs_tile_the_keys_and_each_is_of_one(keys):
    found = list(runs(keys))
    assert [key for first, end in found for key in keys[first:end]] == keys
    assert all(len(set(keys[first:end])) == 1 for first, end in found)
    assert all(keys[end - 1] != keys[end] for _, end in found[:-1])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 40), st.integers(0, 60))
def test_a_shard_takes_documents_until_it_is_full(tokens, limit, before):
    room, written, taken = limit - before, before, 0
    for count in tokens:
        if taken and written >= limit:
            break
        written, taken = written + 2 * count, taken + 1
    assert that_fit(np.array(tokens), room, 2) == taken


@given(st.lists(st.integers(0, 2**40), max_size=20))
def test_many_lengths_are_counted_as_one_by_one(lengths):
    found: dict[int, int] = {}
    count_all(found, np.array(lengths, np.int64))
    assert found == {lower: sum(lower_end(n) == lower for n in lengths) for lower in map(lower_end, lengths)}


def test_the_draws_of_many_places_are_those_of_each():
    places = [("a/文.json", 0), ("b\ud800.json", 7), ("a/文.json", 2**40)]
    assert draws_of(places).tolist() == [draw_of(*place) for place in places]


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=30), st.integers(0, 3))
def test_no_place_that_is_drawn_is_passed_over(places, limit):
    reservoir = Reservoir(limit)
    for first in range(0, len(places), 7):
        part = places[first : first + 7]
        wanted = {n for n, place in enumerate(part) if reservoir.draw(BUCKET, place) is not None}
        assert wanted <= set(reservoir.candidates(BUCKET, np.array(part, np.uint64)))
        for place in part:
            draw = reservoir.draw(BUCKET, place)
            if draw is not None:
                reservoir.add(Sample(kind="kept", draw=draw, path="a", position=0, text=""))
