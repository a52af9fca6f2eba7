import itertools
import threading

import numpy as np
import pytest
from loader_helpers import Tokens, make_order, numbered

from lmbatch.errors import ConfigError, ShardError
from lmbatch.loader import BatchLoader, read_samples
from lmbatch.loader import batches as batches_module

COUNTS = [100, 0, 33, 3, 3, 3, 3, 250, 80]
BATCH = 24


def take(steps, order, source=None, **options):
    with BatchLoader(order, source or numbered(COUNTS), **{"batch_size": BATCH, "micro": 1} | options) as loader:
        return list(itertools.islice(loader, steps))


def tokens_of(steps):
    return np.concatenate([batch.tokens for step in steps for batch in step.batches])


@pytest.mark.parametrize("mode", ["global", "windowed"])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
def test_the_stream_is_the_same_for_every_world_size_and_micro_batch(mode, world):
    order = make_order(COUNTS, 8, mode)
    steps = 6  # more than two epochs of 59 samples
    expected = read_samples(order, numbered(COUNTS), np.arange(steps * BATCH)).reshape(steps, BATCH, 9)
    per_rank = BATCH // world
    for micro in [size for size in (1, 2, 3, 4, 8) if per_rank % size == 0]:
        ranks = [take(steps, order, micro=micro, rank=rank, world_size=world) for rank in range(world)]
        for number in range(steps):
            batches = [batch for rank in ranks for batch in rank[number].batches]
            assert all(batch.tokens.shape == (micro, 9) for batch in batches)
            assert [s for batch in batches for s in batch.samples] == list(range(number * BATCH, (number + 1) * BATCH))
            assert np.array_equal(np.concatenate([batch.tokens for batch in batches]), expected[number])
            assert {rank[number].first_sample for rank in ranks} == {number * BATCH}
            assert all(batch.first_sample == batch.samples[0] for batch in batches)


@pytest.mark.parametrize("mode", ["global", "windowed"])
@pytest.mark.parametrize("at_once", [1, 50, 1024])
def test_from_any_sample_on_it_is_the_rest_of_the_uninterrupted_stream(mode, at_once, monkeypatch):
    monkeypatch.setattr(batches_module, "_LOCATE_AT_ONCE", at_once)
    order = make_order(COUNTS, 8, mode)
    whole = read_samples(order, numbered(COUNTS), np.arange(200))
    for start in [0, 1, 7, 24, 58, 59, 60, 100, 150]:
        steps = take(2, make_order(COUNTS, 8, mode), start_sample=start, micro=4)
        assert np.array_equal(tokens_of(steps), whole[start : start + 2 * BATCH])
        assert [step.first_sample for step in steps] == [start, start + BATCH]


def test_over_an_epoch_every_token_is_predicted_once_by_some_rank():
    counts = [100, 0, 2, 331]
    order = make_order(counts, 8, "windowed")
    assert order.samples_per_epoch == 54
    ranks = [take(9, order, numbered(counts), batch_size=6, rank=rank, world_size=3) for rank in range(3)]
    targets = np.concatenate([tokens_of(steps)[:, 1:].ravel() for steps in ranks])
    assert len(targets) == len(np.unique(targets)) == 54 * 8


def test_tokens_are_int64_copies_that_outlive_the_reader():
    source = Tokens([np.arange(500, dtype=np.uint16)])
    tokens = tokens_of(take(1, make_order([500]), source))
    before = tokens.copy()
    source.arrays[0][:] = 0
    assert tokens.dtype == np.int64
    assert np.array_equal(tokens, before)


@pytest.mark.parametrize(("batch", "micro", "world"), [(10, 4, 1), (10, 1, 3), (8, 4, 4)])
def test_a_batch_that_cannot_be_shared_out(batch, micro, world):
    with pytest.raises(ConfigError) as error:
        BatchLoader(make_order(COUNTS), numbered(COUNTS), batch_size=batch, micro=micro, world_size=world)
    for number in (batch, micro, world):
        assert str(number) in error.value.message
    assert error.value.remedy


@pytest.mark.parametrize("batch", [4, 64])
def test_windows_are_held_one_after_the_other_with_the_next_announced(batch):
    order, source = make_order(COUNTS, 8, "windowed", 3), numbered(COUNTS)
    take(140 // batch, order, source, batch_size=batch, prefetch=1)
    expected, sample = [], 0
    for _ in source.held:
        window = order.window_of(sample)
        following = order.window_of(window.end)
        expected.append((order.shards_needed(window), order.shards_needed(following)))
        sample = window.end
    assert len(source.held) > 3
    assert source.held == expected


class Gate(Tokens):
    """Lets a number of samples through, and then does what the test says."""

    def __init__(self, samples, then):
        super().__init__([np.arange(10_000, dtype=np.int32)])
        self.left, self.then = samples, then
        self.reached = threading.Event()

    def tokens(self, shard):
        if not self.left:
            self.reached.set()
            self.then()
        self.left -= 1
        return super().tokens(shard)


def raise_damage():
    try:
        raise OSError("disk")
    except OSError as error:
        raise ShardError("shard 7 is damaged") from error


def test_an_error_surfaces_in_the_consumer_with_its_cause_and_stays():
    with BatchLoader(make_order([10_000]), Gate(BATCH * 2, raise_damage), batch_size=BATCH, micro=8) as loader:
        assert [next(loader).first_sample, next(loader).first_sample] == [0, BATCH]
        for _ in range(2):
            with pytest.raises(ShardError, match="shard 7") as error:
                next(loader)
            assert isinstance(error.value.__cause__, OSError)


def test_even_what_is_no_ordinary_exception_ends_the_wait():
    def exit_now():
        raise SystemExit(3)

    loader = BatchLoader(make_order([10_000]), Gate(0, exit_now), batch_size=8, micro=8)
    with loader, pytest.raises(SystemExit):
        next(loader)


@pytest.mark.parametrize("prefetch", [1, 3])
def test_no_more_is_read_ahead_than_asked_for_and_closing_a_full_loader_ends_the_thread(prefetch):
    source = Gate(BATCH * prefetch, lambda: None)
    loader = BatchLoader(make_order([10_000]), source, batch_size=BATCH, micro=8, prefetch=prefetch)
    thread = loader._thread
    assert not source.reached.wait(0.2)  # full: it must not begin the next step
    assert thread.is_alive()
    next(loader)
    assert source.reached.wait(30)
    loader.close()
    assert not thread.is_alive()
    loader.close()
    with pytest.raises(StopIteration):
        next(loader)


def test_closing_wakes_a_consumer_even_while_a_read_hangs(monkeypatch):
    monkeypatch.setattr(batches_module, "_CLOSE_SECONDS", 0.0)
    go = threading.Event()
    source = Gate(0, lambda: go.wait(300))
    loader = BatchLoader(make_order([10_000]), source, batch_size=8, micro=8)
    consumer = threading.Thread(target=lambda: list(loader), daemon=True)
    consumer.start()
    assert source.reached.wait(30)
    loader.close()
    consumer.join(60)
    woken = not consumer.is_alive()
    go.set()
    loader._thread.join(30)
    assert woken
