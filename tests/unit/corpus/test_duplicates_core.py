"""What texts are compared by, and which of them go."""

from __future__ import annotations

import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmbatch.config import DedupConfig, NearConfig
from lmbatch.corpus.duplicates import (
    REASONS,
    Clusters,
    Signer,
    content_hash,
    drop_records,
    exact_drops,
    near_drops,
    normal_form,
    one_per_row,
    partition_of,
    row_order,
    shingles,
)
from lmbatch.corpus.duplicates.deciding import Cluster
from lmbatch.corpus.duplicates.records import share_of
from lmbatch.errors import UsageError
from support.duplicates import disguised, edited, original

GOLDEN_HASH = "b41dd0c5865e19234fdd2ff72ccfafeb"
GOLDEN_BANDS = [16719617074445133130, 11071342337645592970, 2878372614348685667]
NEAR = Signer(DedupConfig(near=NearConfig()))


def spelt(text: str) -> str:
    return normal_form(text).astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("ＡＢＣ，１２３", "abc,123"),
        ("天地 玄\u3000黄\r\n\t宇宙", "天地玄黄宇宙"),
        ("ﬁne", "fine"),
        ("e\u0301", "é"),
        ("STRASSE", "strasse"),
        ("straße", "strasse"),
        ("각", "각"),
        ("😀 B", "😀b"),
        ("\U00020000\U0001f600", "\U00020000\U0001f600"),
        ("", ""),
        (" \n", ""),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    assert spelt(text) == normal


@given(st.text(st.characters(codec=None), max_size=30))
def test_the_table_gives_what_unicode_gives(text: str) -> None:
    """Whatever stands beside whatever: the short way and the long way are one."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    assert spelt(text) == "".join(folded.split())


def test_every_character_between_two_others() -> None:
    """All of the table, in a context where neighbours could compose with it."""
    for start in range(0, 0x30000, 64):
        text = "".join(f"a{chr(point)}한" for point in range(start, start + 64))
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        assert spelt(text) == "".join(folded.split()), hex(start)


def test_the_content_hash_is_the_same_everywhere() -> None:
    assert content_hash(normal_form("天地玄黄，宇宙洪荒。")).hex() == GOLDEN_HASH


@given(st.text(max_size=40), st.integers(1, 9))
def test_shingles_are_those_of_the_text(text: str, ngram: int) -> None:
    """Equal n-grams have equal hashes, different ones do not."""
    points = normal_form(text)
    hashes = np.concatenate(list(shingles(points, ngram))).tolist()
    padded = points.tolist() + [0] * (ngram - len(points))
    grams = [tuple(padded[start : start + ngram]) for start in range(len(padded) - ngram + 1)]
    assert len(hashes) == len(grams)
    assert len(set(hashes)) == len(set(grams)) == len(set(zip(hashes, grams, strict=True)))


def test_a_long_text_is_signed_in_pieces_to_the_same_signs() -> None:
    """Its shingles come in several pieces, and none is more than 256 KiB."""
    text = "".join(chr(0x4E00 + number * 7919 % 20000) for number in range(150_000))
    pieces = list(shingles(normal_form(text), 5))
    assert len(pieces) == 5
    assert max(piece.nbytes for piece in pieces) <= 256 * 1024
    near = NearConfig()
    whole = NEAR._sketched(np.concatenate(pieces), near.bands * near.rows, near.seed)
    assert (NEAR._signature(pieces, near) == whole).all()


def test_signs_are_the_same_in_every_process() -> None:
    code = (
        "from lmbatch.config import *; from lmbatch.corpus.duplicates import Signer\n"
        f"print(Signer(DedupConfig(near=NearConfig())).sign({original(1)!r}).bands.tolist()[:3])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(NEAR.sign(original(1)).bands.tolist()[:3]) == str(GOLDEN_BANDS)


def share(one: str, other: str) -> bool:
    """Do they share a band?"""
    return bool((NEAR.sign(one).bands == NEAR.sign(other).bands).any())


def test_an_edited_text_shares_a_band_and_an_unrelated_one_does_not() -> None:
    found = sum(share(original(number), edited(original(number), number)) for number in range(100))
    assert found >= 98
    assert not any(share(original(number), original(number + 1)) for number in range(200))


def test_a_disguised_text_is_the_same() -> None:
    one, other = NEAR.sign(original(3)), NEAR.sign(disguised(original(3)))
    assert (one.high, one.low) == (other.high, other.low)
    assert (one.bands == other.bands).all()


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.8, 0.9])
def test_the_share_that_is_found_follows_the_curve(similarity: float) -> None:
    """1 - (1 - s^rows)^bands, within what 400 draws allow."""
    near = NearConfig()
    rng = np.random.default_rng(5)
    common, own = int(400 * similarity), (400 - int(400 * similarity)) // 2
    found = 0
    for _ in range(400):
        hashes = rng.integers(0, 2**64, common + 2 * own, dtype=np.uint64)
        sets = (hashes[: common + own], np.concatenate([hashes[:common], hashes[common + own :]]))
        rows = [NEAR._signature([np.ascontiguousarray(values)], near).reshape(near.bands, -1) for values in sets]
        found += bool((rows[0] == rows[1]).all(axis=1).any())
    expected = 1 - (1 - similarity**near.rows) ** near.bands
    assert abs(found / 400 - expected) < 0.09
    assert abs(near.threshold - 0.8) < 0.01


def test_without_rensa_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    Signer(DedupConfig())
    with pytest.raises(UsageError, match="needs the package rensa") as caught:
        Signer(DedupConfig(near=NearConfig()))
    assert caught.value.remedy == "pip install 'lmbatch[dedup]'"


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=40)


@given(ROWS)
def test_exact_keeps_the_first_of_each(rows: list[tuple[int, int]]) -> None:
    order = row_order(np.arange(len(rows)) // 7, np.arange(len(rows)) % 7)
    high, low = (np.array([row[place] for row in rows], dtype=np.uint64) for place in (0, 1))
    decision = exact_drops(high, low, order)
    first = {key: int(order[rows.index(key)]) for key in set(rows)}
    expected = {int(order[n]): first[row] for n, row in enumerate(rows) if rows.index(row) != n}
    assert dict(zip(decision.dropped.tolist(), decision.kept.tolist(), strict=True)) == expected
    assert sorted(decision.dropped.tolist()) == decision.dropped.tolist()
    sizes = [rows.count(key) for key in set(rows) if rows.count(key) > 1]
    assert sorted(decision.clusters.sizes.elements()) == sorted(sizes)


@given(ROWS, st.booleans())
def test_near_keeps_the_first_of_a_bucket_and_leaves_copies_to_exact(rows: list[tuple[int, int]], exact: bool) -> None:
    """A text's key follows from its content here, as it does for real: copies share every bucket."""
    rows = [(content // 2, content) for content, _ in rows]
    order = row_order(0, np.arange(len(rows)))
    key, content = (np.array([row[place] for row in rows], dtype=np.uint64) for place in (0, 1))
    decision = near_drops(key, content.astype(np.uint32) if exact else None, order)
    dropped = set()
    for n, (bucket, text) in enumerate(rows):
        before = rows[:n]
        if exact and (bucket, text) in before:
            continue
        if any(other == bucket for other, _ in before):
            dropped.add(n)
    assert set(decision.dropped.tolist()) == dropped
    firsts = {bucket: next(n for n, row in enumerate(rows) if row[0] == bucket) for bucket, _ in rows}
    kept = dict(zip(decision.dropped.tolist(), decision.kept.tolist(), strict=True))
    assert all(first == firsts[rows[row][0]] for row, first in kept.items())


def test_of_several_reasons_a_copy_is_a_copy() -> None:
    order, kept = np.array([5, 5, 5, 2], dtype=np.uint64), np.array([3, 1, 4, 0], dtype=np.uint64)
    chosen = one_per_row(order, kept, np.array([1, 1, 0, 1], dtype=np.uint32))
    assert chosen.tolist() == [3, 2]
    records = drop_records(order[chosen], row_order(7, kept[chosen]), np.array([1, 0], dtype=np.uint32))
    assert records.tolist() == [(2, 7, 0, 1), (5, 7, 4, 0)]
    assert REASONS == ("duplicate", "near_duplicate")


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50), st.integers(1, 70))
def test_partitions_are_ranges_of_keys(keys: list[int], count: int) -> None:
    values = np.array(sorted(keys), dtype=np.uint64)
    for cut in (partition_of(values, count), share_of(values, count)):
        assert ((cut >= 0) & (cut < count)).all()
    partitions = partition_of(values, count).tolist()
    assert partitions == sorted(partitions)


def test_clusters_add_up() -> None:
    one, other = Clusters(), Clusters()
    one.sizes.update({2: 3})
    one.largest = [Cluster(5, 1, (2,)), Cluster(2, 9, (10,))]
    other.sizes.update({2: 1, 7: 1})
    other.largest = [Cluster(7, 1, (2, 3))]
    one.add(other)
    assert one.sizes == {2: 4, 7: 1}
    assert [(cluster.size, cluster.kept) for cluster in one.largest] == [(7, 1), (2, 9)]
