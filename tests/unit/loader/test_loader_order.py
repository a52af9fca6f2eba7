import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from loader_helpers import make_corpus, make_order, numbered

from lmbatch.errors import ConfigError
from lmbatch.loader import SampleOrder, Span, read_sample, read_samples

MODES = ["global", "windowed"]
COUNTS = st.lists(st.sampled_from([0, 1, 2, 3, 7, 20, 50]), min_size=1, max_size=12)


def predicted(order, epoch):
    """(shard, token) of everything that the epoch's samples predict, in order of samples."""
    n = order.samples_per_epoch
    for sample in range(epoch * n, (epoch + 1) * n):
        tokens = [(span.shard, span.start + at) for span in order.locate(sample) for at in range(span.length)]
        assert len(tokens) == order.sequence_length + 1
        yield from tokens[1:]


@given(counts=COUNTS, length=st.sampled_from([1, 2, 5, 9]), window=st.integers(1, 5), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("mode", MODES)
def test_every_token_is_predicted_once_in_an_epoch_but_the_first_and_the_tail(mode, counts, length, window, seed):
    total = sum(counts)
    assume(total > length)
    order = make_order(counts, length, mode, window, seed)
    for epoch in (0, 1, 5):
        seen = list(predicted(order, epoch))
        assert len(seen) == len(set(seen)) == order.samples_per_epoch * length
        assert total - 1 - len(seen) < length
        assert all(at < counts[shard] for shard, at in seen)


@pytest.mark.parametrize("mode", MODES)
def test_left_out_are_the_streams_first_token_and_its_tail(mode):
    counts = [30, 0, 17, 5, 40]
    order = make_order(counts, 9, mode, 2)
    left = {(shard, at) for shard, count in enumerate(counts) for at in range(count)} - set(predicted(order, 2))
    stream = stream_of(order, counts, 2)
    assert left == {stream[0], *stream[1 + 10 * 9 :]}
    assert len(left) == 2


def stream_of(order, counts, epoch):
    """The epoch's token stream, put together from its windows' shards."""
    shards, sample = [], epoch * order.samples_per_epoch
    while sample < (epoch + 1) * order.samples_per_epoch:
        window = order.window_of(sample)
        shards += [shard for shard in order.shards_needed(window) if shard not in shards]
        sample = window.end
    return [(shard, at) for shard in shards for at in range(counts[shard])]


@given(counts=COUNTS, length=st.sampled_from([1, 3, 9]), window=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("mode", MODES)
def test_many_lookups_at_once_are_the_same_as_one_by_one(mode, counts, length, window):
    assume(sum(counts) > length)
    order = make_order(counts, length, mode, window)
    samples = np.arange(3 * order.samples_per_epoch)
    located = order.locate_many(samples)
    for sample in samples.tolist():
        spans = order.locate(sample)
        found = (located.shard[sample], located.start[sample], located.whole[sample])
        assert found == (spans[0].shard, spans[0].start, len(spans) == 1)


@given(counts=COUNTS, length=st.sampled_from([1, 3, 9]), window=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_windows_tile_the_samples_and_name_the_shards_they_touch(counts, length, window):
    assume(sum(counts) > length)
    order = make_order(counts, length, "windowed", window)
    sample = 0
    while sample < 2 * order.samples_per_epoch:
        found = order.window_of(sample)
        assert found.first == sample < found.end
        assert found.epoch == sample // order.samples_per_epoch
        touched = {span.shard for inside in range(found.first, found.end) for span in order.locate(inside)}
        assert touched == set(order.shards_needed(found))
        assert {order.window_of(inside) for inside in range(found.first, found.end)} == {found}
        sample = found.end


def test_a_window_needs_its_own_shards_and_at_most_what_its_last_sample_reaches():
    order = make_order([1000] * 40, 9, "windowed", 4)
    for sample in range(0, order.samples_per_epoch, 100):
        assert len(order.shards_needed(order.window_of(sample))) <= 5


def test_in_global_mode_an_epoch_is_one_window():
    order = make_order([100, 0, 50], 9)
    assert order.window_of(20) == order.window_of(16)
    assert (order.window_of(16).first, order.window_of(16).end) == (16, 32)
    assert order.shards_needed(order.window_of(16)) == (0, 2)


def test_samples_of_a_window_are_shuffled_and_windows_too():
    order = make_order([100] * 16, 9, "windowed", 4)
    window = order.window_of(0)
    starts = [order.locate(sample)[0] for sample in range(window.first, window.end)]
    in_stream = sorted(starts, key=lambda span: (order.shards_needed(window).index(span.shard), span.start))
    assert starts != in_stream
    assert list(order.shards_needed(window)) != sorted(order.shards_needed(window))


@pytest.mark.parametrize("mode", MODES)
def test_the_order_differs_by_epoch_seed_and_digest_and_by_nothing_else(mode):
    def first(n, **changes):
        values = {"digest": "a", "seed": 1, "sequence_length": 9, "shuffle": mode, "window_shards": 2} | changes
        order = SampleOrder([500] * 6, **values)
        return [order.locate(sample) for sample in range(n, n + 40)]

    assert first(0) == first(0)
    epoch = make_order([500] * 6, 9, mode).samples_per_epoch
    others = [first(epoch), first(0, seed=2), first(0, digest="b")]
    assert all(first(0) != other for other in others)
    assert others[1] != others[2]


@pytest.mark.parametrize("mode", MODES)
def test_it_does_not_matter_what_was_asked_before(mode):
    order = make_order([70, 30, 90, 10], 4, mode)
    samples = list(range(5 * order.samples_per_epoch))
    expected = {sample: make_order([70, 30, 90, 10], 4, mode).locate(sample) for sample in samples}
    random.Random(1).shuffle(samples)
    assert {sample: order.locate(sample) for sample in samples} == expected


def test_a_sample_over_many_short_and_empty_shards():
    counts = [0, 2, 0, 0, 1, 3, 0, 4, 0]
    order = make_order(counts, 9)
    assert order.locate(0) == (Span(1, 0, 2), Span(4, 0, 1), Span(5, 0, 3), Span(7, 0, 4))
    assert read_sample(order, numbered(counts), 0).tolist() == list(range(10))


@pytest.mark.parametrize("mode", MODES)
def test_samples_read_are_runs_of_the_stream(mode):
    counts = [30, 1, 0, 70, 2]
    order, source = make_order(counts, 6, mode), numbered(counts)
    tokens = read_samples(order, source, np.arange(order.samples_per_epoch))
    assert tokens.dtype == np.int64
    assert tokens.shape == (order.samples_per_epoch, 7)
    for row, sample in zip(tokens, range(order.samples_per_epoch), strict=True):
        pieces = [source.tokens(span.shard)[span.start : span.start + span.length] for span in order.locate(sample)]
        assert row.tolist() == np.concatenate(pieces).tolist()


@pytest.mark.parametrize("counts", [[], [0], [8], [4, 4]])
def test_too_few_tokens_for_one_sample(counts):
    with pytest.raises(ConfigError, match=f"{sum(counts)} tokens in {len(counts)} shards") as error:
        make_order(counts, 8)
    assert "sequence_length" in error.value.remedy


def test_one_sample_is_enough():
    assert make_order([9], 8).locate(7) == (Span(0, 0, 9),)


def test_a_far_sample_of_a_huge_corpus_takes_no_longer_and_no_memory():
    counts = np.full(100_000, 10**7)
    tracemalloc.start()
    order = make_order(counts, 1024, "windowed", 8)
    order.locate(0)
    built = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    far = 40 * order.samples_per_epoch - 1  # the last sample of epoch 39
    spans = order.locate(far)
    window = order.window_of(far)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert order.samples_per_epoch == (10**12 - 1) // 1024
    assert sum(span.length for span in spans) == 1025
    assert len(order.shards_needed(window)) <= 9
    assert built < 100_000 * 8 * 4  # counts, shards, offsets
    assert peak < 100_000 * 8 * 40  # the permutation of the shards at work


def test_lookups_within_an_epoch_build_nothing(monkeypatch):
    order = make_order([10**7] * 1000, 1024, "windowed", 8)
    built = []
    make = order._make_epoch
    monkeypatch.setattr(order, "_make_epoch", lambda number: built.append(number) or make(number))
    for sample in np.linspace(0, order.samples_per_epoch - 1, 50).astype(int).tolist():
        order.locate(sample)
    assert built == [0]


def test_from_manifest_takes_the_split_in_order(tmp_path):
    _, manifest = make_corpus(tmp_path, [[20, 5], [9]], [[30]])
    options = {"seed": 3, "sequence_length": 4, "shuffle": "global", "window_shards": 1}
    order = SampleOrder.from_manifest(manifest, "train", **options)
    same = SampleOrder([25, 9], digest=manifest.digest, **options)
    assert [order.locate(n) for n in range(20)] == [same.locate(n) for n in range(20)]
    assert SampleOrder.from_manifest(manifest, "validation", **options).samples_per_epoch == 7


GOLDEN = {
    "global": [(4, 2725), (4, 229), (4, 3813), (4, 3429), (4, 4325), (4, 2917), (4, 3045)],
    "windowed": [(0, 128), (0, 64), (0, 576), (4, 1324), (0, 640), (0, 896), (0, 640)],
}


@pytest.mark.parametrize("mode", MODES)
def test_the_order_can_never_change_silently(mode):
    order = SampleOrder(
        [1000, 0, 300, 7, 5000, 64], digest="sha256:" + "ab" * 32, seed=1234, sequence_length=64, shuffle=mode,
        window_shards=2,
    )  # fmt: skip
    found = [(order.locate(n)[0].shard, order.locate(n)[0].start) for n in (0, 1, 2, 98, 99, 100, 10**6)]
    assert order.samples_per_epoch == 99
    assert found == GOLDEN[mode]
