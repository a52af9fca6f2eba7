"""Which tokens are hidden: the shares, what is never touched, and that nothing but seed and sample number decides."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmbatch.config import ObjectiveConfig
from lmbatch.loader import Batch, MaskedBatch, Masking, Purpose
from lmbatch.loader.batches import IGNORED
from lmbatch.loader.masking import Draws, below, uniform
from lmbatch.store import SpecialTokens

FIRST, PAD, LAST, UNKNOWN, MASK, SIZE = 0, 1, 2, 3, 4, 300
SPECIAL = SpecialTokens(
    first="<s>", pad="<pad>", mask="<mask>", first_id=FIRST, last_id=LAST, pad_id=PAD, mask_id=MASK,
    ids=(FIRST, PAD, LAST, UNKNOWN, MASK), size=SIZE,
)  # fmt: skip
CONFIG = ObjectiveConfig(name="masked")


def masking(seed: int = 1, purpose: Purpose = Purpose.TRAINING, config: ObjectiveConfig = CONFIG) -> Masking:
    return Masking(config, SPECIAL, seed=seed, purpose=purpose)


def examples(lengths: list[int], width: int, first: int = 0) -> Batch:
    """Example i: tokens that depend on i alone, LAST at its end; padded with it, as the loader does."""
    tokens = np.full((len(lengths), width), LAST, np.int64)
    for row, length in enumerate(lengths):
        tokens[row, : length - 1] = np.random.default_rng(first + row).integers(5, SIZE, length - 1)
    numbers = tuple(range(first, first + len(lengths)))
    return Batch(first, numbers, tokens, np.array(lengths, np.int64))


def restored(batch: MaskedBatch) -> np.ndarray:
    return np.where(batch.hidden == IGNORED, batch.shown, batch.hidden)


def test_the_shares_are_those_of_the_config():
    batch = masking()(examples([500] * 400, 501))
    chosen = batch.hidden != IGNORED
    ordinary = ~np.isin(restored(batch), SPECIAL.ids)
    assert ordinary.sum() == 400 * 499
    assert chosen.sum() / ordinary.sum() == pytest.approx(0.15, abs=0.003)
    seen, wanted = batch.shown[chosen], batch.hidden[chosen]
    assert (seen == MASK).mean() == pytest.approx(0.8, abs=0.01)
    assert (seen == wanted).mean() == pytest.approx(0.1, abs=0.01)
    random = seen[(seen != MASK) & (seen != wanted)]
    assert not np.isin(random, SPECIAL.ids).any()
    assert len(np.unique(random)) == SIZE - len(SPECIAL.ids)  # 3,000 draws find each of 295


def test_other_shares():
    config = ObjectiveConfig(name="masked", mask_share=0.4, hidden_share=0.0, random_share=0.0)
    batch = masking(config=config)(examples([500] * 20, 501))
    assert (batch.hidden != IGNORED).mean() == pytest.approx(0.4, abs=0.02)
    assert np.array_equal(batch.shown, restored(batch))


def test_special_tokens_and_padding_are_never_hidden():
    batch = examples([40, 9, 25], 41)
    batch.tokens[0, 3::5] = UNKNOWN
    batch.tokens[1, 4] = MASK
    for seed in range(50):
        masked = masking(seed)(batch)
        assert not np.isin(masked.hidden, SPECIAL.ids).any()
        assert (masked.shown[:, 0] == FIRST).all()
        for row, size in enumerate([41, 10, 26]):
            assert (masked.shown[row, size:] == PAD).all()
            assert masked.shown[row, size - 1] == LAST


def test_text_stays_what_it_is_where_nothing_is_predicted():
    batch = examples([30, 12], 31)
    masked = masking()(batch)
    assert np.array_equal(restored(masked)[0, 1:31], batch.tokens[0, :30])
    assert np.array_equal(restored(masked)[1, 1:13], batch.tokens[1, :12])
    assert masked.inputs()["attention_mask"].sum(1).tolist() == [31, 13]
    assert masked.seen == 44
    assert masked.targets == (masked.labels() != IGNORED).sum() > 0


def test_a_sample_with_one_ordinary_token_teaches_it():
    batch = examples([2] * 64, 9)
    assert masking()(batch).targets == 64
    batch.tokens[:, 0] = UNKNOWN
    assert masking()(batch).targets == 0


def test_rows_are_no_wider_than_the_longest_needs():
    assert masking()(examples([3, 5], 100)).shown.shape == (2, 8)
    assert masking()(examples([3, 7], 100)).shown.shape == (2, 8)
    assert masking()(examples([3, 8], 100)).shown.shape == (2, 16)
    assert masking()(examples([99], 100)).shown.shape == (1, 100)


def test_packed_samples_have_no_padding_and_leave_the_next_ones_token_out():
    tokens = np.random.default_rng(0).integers(5, SIZE, (4, 32))
    masked = masking()(Batch(8, (8, 9, 10, 11), tokens))
    assert masked.inputs().keys() == {"input_ids"}
    assert np.array_equal(restored(masked)[:, 1:], tokens[:, :-1])
    assert (masked.shown[:, 0] == FIRST).all()
    assert masked.seen == 4 * 32


def rows_of(batches: list[MaskedBatch]) -> dict[int, list[int]]:
    return {s: row.tolist() for batch in batches for s, row in zip(batch.samples, batch.rows(), strict=True)}


@given(st.lists(st.integers(2, 20), min_size=8, max_size=8), st.integers(0, 2**70), st.sampled_from([1, 2, 4]))
def test_masks_depend_on_seed_and_sample_alone(lengths, seed, micro):
    whole = masking(seed)(examples(lengths, 21))
    parts = [
        masking(seed)(examples(lengths[at : at + micro], 30, first=at)) for at in range(6 - micro, -1, -micro)
    ]  # another width, another order, one object each
    both = rows_of([whole])
    assert all(both[sample] == row for sample, row in rows_of(parts).items())


def test_seed_sample_and_purpose_each_change_the_masks():
    batch = examples([200], 201)
    again = Batch(1, (1,), batch.tokens, batch.lengths)
    far = Batch(2**40, (2**40,), batch.tokens, batch.lengths)
    rows = [
        masking()(batch).hidden, masking(2)(batch).hidden, masking(purpose=Purpose.VALIDATION)(batch).hidden,
        masking()(again).hidden, masking()(far).hidden,
    ]  # fmt: skip
    assert all(not np.array_equal(one, other) for one, other in itertools.combinations(rows, 2))
    assert np.array_equal(rows[0], masking()(batch).hidden)


def test_the_draws_are_those_that_were_always_drawn():
    """A checkpoint of years ago must find its masks again, so these numbers may never change."""
    expected = [
        [11979686004962671011, 16323179865340250365, 10214588297808276483],
        [17579238321377784916, 7621836518698383027, 9886104296393615268],
    ]
    assert Draws(42, Purpose.TRAINING).of(7, 2).tolist() == expected
    assert Draws(42, Purpose.TRAINING).of(7, 50)[:2].tolist() == expected
    assert uniform(np.array([0, 2**64 - 1], np.uint64)).tolist() == [0.0, 1 - 2.0**-53]


def test_one_sample_after_another_gives_each_its_own_numbers():
    draws = Draws(42, Purpose.VALIDATION)
    for sample, tokens in ((3, 5), (7, 1), (3, 5), (0, 0), (2**40, 2)):
        assert draws.of(sample, tokens).tolist() == Draws(42, Purpose.VALIDATION).of(sample, tokens).tolist()


@given(st.floats(0, 1, exclude_min=True, exclude_max=True), st.integers(-3000, 3000))
def test_a_raw_number_is_below_a_share_as_its_uniform_one_is(share, beside):
    for number in (int(below(share)) + beside, int(below(share)) - 1):
        raw = np.array([min(max(number, 0), 2**64 - 1)], np.uint64)
        assert (raw < below(share)).tolist() == (uniform(raw) < share).tolist()


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"name": "causal", "mask_share": 0.2}, "only `masked` takes that"),
        ({"name": "masked", "mask_share": 0}, "greater than 0"),
        ({"name": "masked", "hidden_share": 0.9, "random_share": 0.2}, "together 1 at most"),
        ({"name": "maskd"}, "'causal' or 'masked'"),
    ],
)
def test_what_makes_no_sense_is_refused(values, what):
    with pytest.raises(ValueError, match=what):
        ObjectiveConfig(**values)
