"""Best-fit-decreasing against its rule written plainly, and against simpler ways of packing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lmbatch.config import ChunkingConfig, fingerprint
from lmbatch.config.load import build
from lmbatch.preprocess.packer import Packer, pack
from lmbatch.preprocess.packing import best_fit, cut
from lmbatch.shards import PackedBatch
from support.packed import EOD, batch_of

CAPACITIES = st.integers(2, 9)
DOCUMENTS = st.lists(st.integers(1, 25), min_size=1, max_size=30)


def examples_of(packed: PackedBatch) -> list[list[int]]:
    return [part.tolist() for part in np.split(packed.flat, np.cumsum(packed.lengths)[:-1])]


def parts_of(packed: PackedBatch) -> list[tuple[int, list[int]]]:
    parts = np.split(packed.flat, np.cumsum(packed.tokens)[:-1])
    return [(position, part.tolist()) for position, part in zip(packed.positions, parts, strict=True)]


def plainly(sizes: list[int], capacity: int) -> list[list[int]]:
    """Every part, the longest first, in the example with the least room for it, of several the one last touched."""
    examples: list[tuple[int, int, list[int]]] = []  # room, when touched, parts
    for clock, part in enumerate(sorted(range(len(sizes)), key=lambda number: -sizes[number])):
        fitting = [example for example in examples if example[0] >= sizes[part]]
        chosen = min(fitting, key=lambda example: (example[0], -example[1]), default=(capacity, 0, []))
        examples = [example for example in examples if example is not chosen]
        examples.append((chosen[0] - sizes[part], clock, [*chosen[2], part]))
    return sorted(sorted(parts) for _, _, parts in examples)


def first_fit(sizes: list[int], capacity: int) -> int:
    rooms: list[int] = []
    for size in sizes:
        place = next((at for at, room in enumerate(rooms) if room >= size), None)
        if place is None:
            rooms.append(capacity - size)
        else:
            rooms[place] -= size
    return len(rooms)


def next_fit(sizes: list[int], capacity: int) -> int:
    examples, room = 1, capacity
    for size in sizes:
        if size > room:
            examples, room = examples + 1, capacity
        room -= size
    return examples


@given(DOCUMENTS, CAPACITIES)
def test_documents_are_cut_only_if_they_are_longer(documents, capacity):
    parts = cut(np.array(documents), capacity)
    found = [parts.sizes[parts.documents == number].tolist() for number in range(len(documents))]
    for tokens, sizes in zip(documents, found, strict=True):
        assert sum(sizes) == tokens
        assert sizes == [tokens] if tokens <= capacity else all(size == capacity for size in sizes[:-1])
        assert 0 < sizes[-1] <= capacity


@given(DOCUMENTS, CAPACITIES)
def test_parts_go_where_the_rule_puts_them(documents, capacity):
    sizes = cut(np.array(documents), capacity).sizes
    packing = best_fit(sizes, capacity)
    examples = [part.tolist() for part in np.split(packing.order, np.cumsum(packing.counts)[:-1])]
    assert examples == plainly(sizes.tolist(), capacity)
    assert all(sizes[example].sum() <= capacity for example in examples)
    assert sorted(packing.order.tolist()) == list(range(len(sizes)))
    # Any two examples together hold more than one could: else the second of them would not have been begun.
    totals = sorted(int(sizes[example].sum()) for example in examples)
    assert len(totals) < 2 or totals[0] + totals[1] > capacity


@given(DOCUMENTS, CAPACITIES)
def test_every_token_is_in_one_example_and_every_part_has_its_document(documents, capacity):
    batch = batch_of(documents)
    packed = pack([batch], capacity)
    assert packed.sound
    assert sorted(packed.flat.tolist()) == sorted(batch.flat.tolist())
    whole = [part.tolist() for part in np.split(batch.flat, np.cumsum(batch.tokens)[:-1])]
    expected = [
        (number, ids[at : at + capacity]) for number, ids in enumerate(whole) for at in range(0, len(ids), capacity)
    ]
    assert sorted(parts_of(packed)) == sorted(expected)
    assert packed.documents == len(documents)
    assert packed.text_bytes == 3 * sum(documents)
    assert packed.ids == [f"d{position}" for position in packed.positions]


@given(DOCUMENTS, CAPACITIES)
def test_what_follows_an_eod_is_another_document_and_a_cut_one_fills_its_examples(documents, capacity):
    packed = pack([batch_of(documents)], capacity)
    for example in examples_of(packed):
        assert example[-1] == EOD or len(example) == capacity
    for _, part in parts_of(packed):
        assert EOD not in part[:-1]
        assert part[-1] == EOD or len(part) == capacity


@given(DOCUMENTS, CAPACITIES, st.lists(st.integers(0, 30)), st.integers(0, 30))
def test_how_documents_come_in_decides_nothing(documents, capacity, splits, more):
    config = ChunkingConfig(mode="best_fit", length=capacity, buffer_tokens=capacity + more)
    ways = []
    for edges in (sorted({0, len(documents), *(split for split in splits if split < len(documents))}), [0, 10**6]):
        packer = Packer(config)
        batch = batch_of(documents)
        found = [packed for first, end in itertools.pairwise(edges) for packed in packer.add(batch.part(first, end))]
        assert all(int(packed.lengths.sum()) >= config.buffer for packed in found)
        found += packer.finish()
        assert packer.tokens == 0
        assert packer.padding == sum(len(packed) * capacity - int(packed.lengths.sum()) for packed in found)
        ways.append([(examples_of(packed), packed.positions) for packed in found])
    assert ways[0] == ways[1]


def test_it_leaves_less_padding_than_simpler_ways():
    rng = np.random.default_rng(7)
    sizes = cut(np.maximum(2, rng.lognormal(5.6, 1.0, 4000)).astype(np.int64), 1024).sizes
    least = -(-int(sizes.sum()) // 1024)
    packed = len(best_fit(sizes, 1024).counts)
    assert packed < first_fit(sizes.tolist(), 1024) < next_fit(sizes.tolist(), 1024)
    assert packed <= 1.002 * least
    assert next_fit(sizes.tolist(), 1024) > 1.1 * least


def test_examples_come_in_the_order_of_their_documents():
    packing = best_fit(np.array([5, 3, 8, 2, 3]), 8)
    assert packing.order.tolist() == [0, 1, 2, 3, 4]
    assert packing.counts.tolist() == [2, 1, 2]


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"mode": "best_fit"}, "best_fit needs a length"),
        ({"mode": "best_fit", "length": 2**20 + 1}, "at most 1048576"),
        ({"mode": "best_fit", "length": 64, "buffer_tokens": 63}, "does not fill one example"),
        ({"mode": "truncate", "length": 64, "buffer_tokens": 64}, "is for best_fit"),
    ],
)
def test_what_makes_no_sense_is_refused(values, what):
    with pytest.raises(ValidationError, match=what):
        ChunkingConfig.model_validate(values)


def test_the_buffer_is_part_of_what_a_corpus_is():
    plain = build(ChunkingConfig, {"mode": "best_fit", "length": 64}, "test")
    assert plain.buffer == 2**22
    assert fingerprint(plain) != fingerprint(plain.model_copy(update={"buffer_tokens": 2**20}))
    assert "buffer" not in str(ChunkingConfig(mode="truncate", length=9).model_dump(exclude_none=True))


def test_examples_that_do_not_hold_their_parts_are_not_sound():
    packed = pack([batch_of([3, 2, 4])], 5)
    assert packed.sound
    for change in ({"lengths": packed.lengths[::-1]}, {"tokens": packed.tokens[::-1]}, {"flat": packed.flat[:-1]}):
        values = {name: getattr(packed, name) for name in PackedBatch.__slots__}
        assert not PackedBatch(**values | change).sound
