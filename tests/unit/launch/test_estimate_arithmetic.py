"""The arithmetic of an estimate, on figures that can be checked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from lmbatch.config import SlurmSite
from lmbatch.launch.estimate.fit import Room, warnings_of
from lmbatch.launch.estimate.forecast import Basis, forecast
from lmbatch.launch.estimate.makespan import array_run, local_run
from lmbatch.launch.estimate.ranges import choose_ranges, shortened, spread
from lmbatch.launch.estimate.rates import Rate, Rates, rates_of, ratio
from lmbatch.launch.estimate.traffic import bytes_read, heartbeats, input_traffic, polls
from lmbatch.launch.place import Place
from lmbatch.preprocess import Plan, Tally
from lmbatch.preprocess.estimate import Estimate, Interval, Outcome, compare
from lmbatch.preprocess.facts import parse_facts
from lmbatch.store import FileEntry, Ledger, PieceReceipt, Receipt, ShardEntry, Traffic, to_json
from support.plans import HASH, MIB, plan_of


def receipt_of(size: int, *, tokens: int, cpu: float, documents: int = 10, docs: int = 100, **changes: Any) -> Receipt:
    shard = ShardEntry(
        split="train", tokens=tokens, documents=documents, text_bytes=size,
        bin=FileEntry(key="b", size=2 * tokens, sha256=HASH), idx=FileEntry(key="i", size=42, sha256=HASH),
        docs=FileEntry(key="d", size=docs, sha256=HASH),
    )  # fmt: skip
    facts: dict[str, Any] = {
        "task": "task-000000", "plan": "sha256:p", "attempt": "a", "engine": "huggingface", "pieces": (),
        "shards": (shard,), "ledger": Ledger(records=documents, documents={"train": documents}), "seconds": cpu,
        "cpu_seconds": cpu, "peak_memory_bytes": 100 * MIB, "input_bytes": size,
    }  # fmt: skip
    return Receipt.model_validate(facts | changes)


RATES = Rates(
    documents=Rate(100 / MIB, 0.1), tokens=Rate(0.25, 0.1), docs_bytes=Rate(0.0, 0.0), cpu_seconds=Rate(2 / MIB, 0.5),
    task_cpu_seconds=1.0, task_docs_bytes=0.0, wait=1.0, dropped_share=0.0, quarantined_share=0.0,
    peak_memory_bytes=100 * MIB, task_puts=1.0, task_put_bytes=10.0,
)  # fmt: skip
LOCAL = Place("local", 2, SlurmSite())


def estimate_of(plan: Plan, place: Place = LOCAL, store: str = "file:///store", **changes: Any) -> Estimate:
    rates = Rates(**{**RATES.__dict__, **changes})
    basis = Basis(rates, 3.0, 1.0, "probe", 8, MIB, store, plan.raw, array_limit=4)
    return forecast(plan, place, basis, made=1.0)


# ── which ranges ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_ranges_are_spread_over_all_the_input() -> None:
    plan = plan_of([40 * MIB, 40 * MIB])
    found = choose_ranges(plan, 4, MIB)
    places = sorted((piece.file, piece.start, piece.end) for probe in found for piece in probe.pieces)
    half = 19 * MIB // 2
    assert places == [(file, at + half, at + half + MIB) for file in (0, 1) for at in (0, 20 * MIB)]
    assert [probe.limit for probe in found] == [None] * 4


def test_every_beginning_of_the_order_is_spread() -> None:
    assert spread(8) == [0, 4, 2, 6, 1, 5, 3, 7]
    assert sorted(spread(5)) == [0, 1, 2, 3, 4]
    assert spread(1) == [0]


@pytest.mark.parametrize("sizes", [[1000], [300, 300, 401], [1, 1, 1, 1], [5000, 1, 7]])
def test_a_small_input_is_covered_exactly(sizes: list[int]) -> None:
    plan = plan_of(sizes, task=400, piece=400)
    bytes_of = [
        (piece.file, at)
        for probe in choose_ranges(plan, 8, 1000)
        for piece in probe.pieces
        for at in range(piece.start, piece.end)
    ]
    assert sorted(bytes_of) == [(file, at) for file, size in enumerate(sizes) for at in range(size)]


def test_files_that_cannot_be_cut_are_taken_whole_or_left_early() -> None:
    small = choose_ranges(plan_of([100] * 1000, cut=False), 4, 1000)
    assert [(len(probe.pieces), probe.bytes, probe.limit) for probe in small] == [(10, 1000, None)] * 4
    [large] = choose_ranges(plan_of([50 * MIB], cut=False), 4, MIB)
    assert (large.bytes, large.limit) == (MIB, MIB)
    assert shortened(plan_of([50 * MIB], cut=False), large, 1000).limit == 1000


# ── rates ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_ratio_and_its_spread() -> None:
    # 10 % and 30 % of 100 bytes: the mean is 20 %, the standard error 10 % of the bytes, so 50 % of the ratio.
    assert ratio([10, 30], [100, 100], 0.0) == Rate(0.2, pytest.approx(1.0))
    assert ratio([19, 21], [100, 100], 0.0) == Rate(0.2, pytest.approx(0.1))
    assert ratio([19, 21], [100, 100], 0.75).spread == pytest.approx(0.05)
    assert ratio([19, 21], [100, 100], 1.0) == Rate(0.2, 0.0)  # all of it was looked at
    assert ratio([20], [100], 0.0) == Rate(0.2, 0.5)
    assert ratio([0, 0], [100, 100], 0.0) == Rate(0.0, 0.0)
    assert Rate(0.2, 0.5).over(100) == Interval(low=10, likely=20, high=30)


def test_what_a_task_costs_whatever_its_size() -> None:
    # 1 s, and 2 s for each MiB
    first = receipt_of(MIB // 4, tokens=1, cpu=1.5, docs=125)
    others = [receipt_of(MIB, tokens=250, cpu=3.0, docs=200), receipt_of(2 * MIB, tokens=500, cpu=5.0, docs=300)]
    rates = rates_of(others, first, 100 * MIB)
    assert rates.task_cpu_seconds == pytest.approx(1.0)
    assert rates.cpu_seconds.value == pytest.approx(2 / MIB)
    assert rates.cpu_seconds.spread == pytest.approx(0.0, abs=1e-6)
    assert rates.task_docs_bytes == pytest.approx(100)
    assert rates.tokens == Rate(pytest.approx(250 / MIB), pytest.approx(0.0, abs=1e-6))
    assert rates_of(others, None, 100 * MIB).task_cpu_seconds == 0.0


def test_what_a_task_writes_beside_its_shards() -> None:
    found = rates_of([receipt_of(MIB, tokens=50, cpu=1.0, traffic=Traffic(put=5, bytes_up=542))] * 2, None, 9 * MIB)
    assert (found.task_puts, found.task_put_bytes) == (2, 542 - 242)
    assert rates_of([receipt_of(MIB, tokens=50, cpu=1.0)], None, MIB).task_puts == 1  # an older receipt


def test_drops_are_counted_by_record() -> None:
    ledger = Ledger(records=20, documents={"train": 10}, dropped={"short": 6}, quarantined={"bad": 4})
    rates = rates_of([receipt_of(MIB, tokens=50, cpu=1.0, ledger=ledger)], None, MIB)
    assert (rates.dropped_share, rates.quarantined_share) == (0.3, 0.2)


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_last_wave_counts() -> None:
    assert array_run([10, 10, 10], 2, 0).seconds == 20
    assert array_run([10, 10, 10], 2, 1).seconds == 22
    assert array_run([1, 1, 1, 10], 2, 0).seconds == 11
    assert array_run([5], 64, 3).seconds == 8


def test_batches_of_one_machine_are_dealt_as_the_backend_does() -> None:
    run = local_run([1.0] * 10, 2, 0.5)
    # 3 and 2 tasks; the second place is free after 2.5 s and takes half of the other 5, rounded up, and so on.
    assert run.batches == (3, 2, 3, 1, 1)
    assert run.seconds == 6.5
    assert local_run([4.0], 8, 1.0).seconds == 5.0
    assert sum(local_run([1.0] * 1000, 16, 0.5).batches) == 1000


# ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_local_job() -> None:
    plan = plan_of([8 * MIB, 2 * MIB], split={"validation_fraction": 0.0})
    found = estimate_of(plan)
    assert (found.tasks, found.batches, found.shards) == (10, 5, {"train": 10, "validation": 0})
    assert (found.stages, found.units) == ((), 10)
    assert list(dict(found.documents).values()) == pytest.approx([900, 1000, 1100])
    assert found.tokens.likely == 10 * MIB / 4
    assert found.core_seconds.likely == pytest.approx(10 * 3)  # 2 s a MiB and 1 s a task
    assert (found.core_seconds.low, found.core_seconds.high) == (pytest.approx(20), pytest.approx(40))
    # 3+2+3+1+1 tasks of 3 s, each batch 3 s more, and 1 s of the driver: 3+9 | 3+6, then 3+9 | 3+3, then 3+3
    assert found.wall_seconds.likely == pytest.approx(1 + max(12 + 6 + 6, 9 + 12))
    assert found.stored_bytes.likely == pytest.approx(2 * 10 * MIB / 4 + 10 * 42 + 1000 * 20)
    assert found.traffic == Traffic(
        get=5 * 2, put=3 * 10 + 10, head=10, bytes_up=found.traffic.bytes_up, bytes_down=found.traffic.bytes_down
    )
    assert found.traffic.bytes_up == pytest.approx(found.stored_bytes.likely + 10 * 10, rel=1e-3)
    assert found.submissions == 2
    assert found.peak_memory_bytes.low == 100 * MIB
    assert found.spool_bytes.likely == pytest.approx(2 * (MIB / 2 + 100 * 20), rel=0.01)


def test_validation_shards_are_those_that_a_task_is_likely_to_have() -> None:
    # 100 documents a task, 1 % of them: 1 - 0.99**100 = 63.4 % of the tasks have one
    plan = plan_of([100 * MIB], split={"validation_fraction": 0.01})
    assert estimate_of(plan).shards == {"train": 100, "validation": 63}


def test_a_task_that_fills_several_shards_uploads_them_in_parts() -> None:
    plan = plan_of([256 * MIB], task=256 * MIB, piece=256 * MIB, shards={"max_bytes": 64 * MIB},
                   split={"validation_fraction": 0.0})  # fmt: skip
    found = estimate_of(plan, store="s3://bucket/x")
    assert found.shards["train"] == 2  # 128 MiB of payload
    # Each of 64 MiB: 4 parts; idx and docs beside it; the receipt; and a HEAD after each upload.
    assert (found.traffic.put, found.traffic.post) == (2 * 4 + 2 * 2 + 1, 2 * 2)
    assert found.traffic.head == 1 + 3 * 2 + 1
    assert found.peak_memory_bytes.likely > 164 * MIB  # four parts at once


def test_array_jobs() -> None:
    plan = plan_of([8 * MIB, 2 * MIB])
    found = estimate_of(plan, Place("slurm", 2, SlurmSite(max_parallel=2, batch_bytes=2 * MIB, poll_seconds=4)))
    assert (found.batches, found.submissions) == (5, 2)
    # 5 elements of two tasks of 3 s on two places: 3 waves of 3 + 6 s; 5 s in the queue, 2 s until it is seen, 1 s
    assert found.wall_seconds.likely == pytest.approx(3 * 9 + 5 + 2 + 1)


def test_reading_goes_by_chunks_and_ends_with_the_file() -> None:
    plan = plan_of([10 * MIB])
    assert [bytes_read(plan, task.pieces[0]) for task in plan.tasks] == [4 * MIB] * 7 + [3 * MIB, 2 * MIB, MIB]
    local, remote = input_traffic(plan, s3=False), input_traffic(plan, s3=True)
    assert (local.get, local.head, remote.get, remote.head) == (10, 20, 10, 30)
    assert local.bytes_down == remote.bytes_down == 34 * MIB


def test_heartbeats_and_polls() -> None:
    assert heartbeats([0.5, 1.5, 21.5], 10.0) == Traffic(put=1 + 3, delete=2, bytes_up=4 * 600)
    assert heartbeats([100.0], 0.0) == Traffic()
    assert [polls(gap) for gap in (0.0, 0.1, 0.2, 10.0)] == [1, 1, 2, 11]


# ── where it does not fit ────────────────────────────────────────────────────────────────────────────────────────────
PLENTY = Room(memory=2**40, spool=2**40, store=2**40)


def warned(plan: Plan, place: Place = LOCAL, room: Room = PLENTY, **changes: Any) -> str:
    return "\n".join(warnings_of(plan, place, estimate_of(plan, place, **changes), room))


def test_what_fits_is_not_warned_of() -> None:
    assert warned(plan_of([8 * MIB])) == ""
    assert warned(plan_of([8 * MIB]), Place("slurm", 2, SlurmSite(max_parallel=2))) == ""


@pytest.mark.parametrize(
    ("room", "words"),
    [
        (Room(memory=150 * MIB), "fewer --workers"),
        (Room(spool=1000), "the spool needs"),
        (Room(store=1000), "the store will take"),
    ],
)
def test_too_little_room(room: Room, words: str) -> None:
    assert words in warned(plan_of([8 * MIB]), room=room)


def test_a_site_that_asks_for_too_little() -> None:
    def site(**changes: Any) -> Place:
        return Place("slurm", 2, SlurmSite(max_parallel=2, batch_bytes=4 * MIB, **changes))

    plan = plan_of([8 * MIB])
    assert "needs 100 MiB" in warned(plan, site(memory=50 * MIB))
    assert "may need" in warned(plan, site(memory=120 * MIB))
    slow = {"cpu_seconds": Rate(600 / MIB, 0.0)}
    assert "its time limit will be 15" in warned(plan, site(minutes=15, minutes_per_gib=0.0), **slow)
    assert "time limit" not in warned(plan, site(minutes=60), **slow)


def test_a_file_that_keeps_the_others_waiting() -> None:
    uncut = plan_of([100 * MIB, MIB, MIB], cut=False)
    assert "cannot be cut (it is compressed)" in warned(uncut, Place("local", 16, SlurmSite()))
    assert "cannot be cut" not in warned(plan_of([100 * MIB]), Place("local", 16, SlurmSite()))


def test_input_that_the_budget_does_not_allow() -> None:
    assert "the run would fail" in warned(plan_of([8 * MIB]), quarantined_share=0.2)
    assert "the run would fail" not in warned(plan_of([8 * MIB]), quarantined_share=0.01)  # 100 are always allowed
    assert "no document came out" in warned(plan_of([8 * MIB]), documents=Rate(0.0, 0.0))


# ── what happened ────────────────────────────────────────────────────────────────────────────────────────────────────
def tally_of(receipts: list[Receipt]) -> Tally:
    tally = Tally()
    for receipt in receipts:
        tally.add(parse_facts(to_json(receipt), "here"))
    return tally


def test_predicted_against_happened() -> None:
    plan = plan_of([2 * MIB], split={"validation_fraction": 0.0})
    estimate = estimate_of(plan)
    piece = PieceReceipt(path="p", start=0, end=1, first_position=0, end_position=1, records=1)
    done = [
        receipt_of(MIB, tokens=MIB // 4, cpu=4.5, documents=120, pieces=(piece,),
                   traffic=Traffic(put=4, bytes_up=99), input_traffic=Traffic(get=1, bytes_down=7))
    ] * 2  # fmt: skip
    rows = {
        row.what: row
        for row in compare(estimate, tally_of(done), Outcome(seconds=20, tasks_done=2, traffic=Traffic(get=9)))
    }
    assert (rows["tasks"].error, rows["shards"].error, rows["tokens"].error) == (0, 0, 0)
    assert rows["documents"].error == pytest.approx(0.2)
    assert rows["CPU time of tasks"].error == pytest.approx(0.5)
    assert (rows["CPU time of tasks"].low, rows["CPU time of tasks"].high) == (pytest.approx(4), pytest.approx(8))
    assert rows["wall time"].happened == 20
    assert rows["requests to the store"].happened == 8
    assert rows["sent to the store"].happened == 198
    assert rows["input read"].happened == 14
    assert rows["requests of the driver"].happened == 9
    partly = {
        row.what for row in compare(estimate, tally_of(done), Outcome(seconds=2, tasks_done=1, traffic=Traffic()))
    }
    assert "wall time" not in partly  # another driver did the rest, and nobody knows how long it took
    older = [receipt.model_copy(update={"traffic": None}) for receipt in done]
    assert "requests to the store" not in {row.what for row in compare(estimate, tally_of(older), None)}
