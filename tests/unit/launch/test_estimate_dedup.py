"""The estimate of de-duplication: its arithmetic on figures that can be checked by hand, and against real runs."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lmbatch.cli import cli
from lmbatch.config import PreprocessConfig, SiteConfig, SlurmSite
from lmbatch.launch import TaskBatch, open_target, place_of, run_preprocess
from lmbatch.launch.estimate import estimate_by_probe
from lmbatch.launch.estimate.dedup_rates import DedupRates, dedup_rates_from_run
from lmbatch.launch.estimate.dedup_traffic import compare_traffic, filled, lists_traffic, shares, sign_traffic
from lmbatch.launch.estimate.forecast import Basis, forecast
from lmbatch.launch.estimate.rates import Rate, Rates
from lmbatch.launch.estimate.traffic import Watched, driver_traffic, store_traffic
from lmbatch.launch.place import Place
from lmbatch.preprocess import Plan, make_plan, read_receipts, stages_of, store_plan
from lmbatch.preprocess.dedup import CompareReceipt, SignReceipt, parse_compare, parse_sign
from lmbatch.preprocess.estimate import Estimate, Row, save_estimate
from lmbatch.preprocess.merge import read_all
from lmbatch.report import store_status
from lmbatch.store import PROBE_TRAFFIC, Receipt, Store, Traffic, check_publish_once, open_store
from support.duplicates import dedup_config, edited, original, record
from support.here_backend import HereBackend
from support.plans import MIB, plan_of
from support.wudao import write_tokenizer

PLACE = place_of(SiteConfig(name="test"), "local", 2)
BOTH: dict[str, Any] = {"exact": True, "near": {"bands": 4, "rows": 3}}

# ── arithmetic ───────────────────────────────────────────────────────────────────────────────────────────────────────
RATES = Rates(
    documents=Rate(100 / MIB, 0.1), tokens=Rate(0.25, 0.1), docs_bytes=Rate(0.0, 0.0), cpu_seconds=Rate(2 / MIB, 0.5),
    task_cpu_seconds=1.0, task_docs_bytes=0.0, wait=1.0, dropped_share=0.0, quarantined_share=0.0,
    peak_memory_bytes=100 * MIB, task_puts=2.0, task_put_bytes=10.0,
)  # fmt: skip
DEDUP = DedupRates(
    documents=Rate(100 / MIB, 0.1), payload_bytes=Rate(3200 / MIB, 0.1), sign_cpu_seconds=Rate(1 / MIB, 0.5),
    sign_unit_cpu_seconds=1.0, sign_wait=1.0, sign_memory_bytes=50 * MIB, receipt_bytes=1000.0,
    row_cpu_seconds=Rate(0.001, 0.5), partition_cpu_seconds=0.5, compare_wait=1.0, compare_memory_bytes=60 * MIB,
    drops=0.1, most_drops=1.0, startup_seconds=2.0,
)  # fmt: skip


def signed_plan(sizes: list[int], partitions: int = 2, dedup: dict[str, Any] | None = None) -> Plan:
    plan = plan_of(sizes, dedup=dedup or {"exact": True}, split={"validation_fraction": 0.0})
    return plan.model_copy(update={"partitions": partitions})


def estimate_of(plan: Plan, place: Place, store: str = "file:///store", dedup: DedupRates = DEDUP) -> Estimate:
    basis = Basis(RATES, 3.0, 1.0, "probe", 8, MIB, store, plan.raw, array_limit=4, dedup=dedup)
    return forecast(plan, place, basis, made=1.0)


def test_every_stage_by_itself_and_in_sum() -> None:
    found = estimate_of(signed_plan([8 * MIB, 2 * MIB]), PLACE)
    sign, compare, tokenize = found.stages
    assert [stage.name for stage in found.stages] == ["sign", "compare", "tokenize"]
    assert [(stage.units, stage.batches) for stage in found.stages] == [(10, 5), (2, 2), (10, 5)]
    assert (found.units, found.batches, found.submissions) == (22, 12, 2 + 1 + 2)
    # 1 s a task and 1 s a MiB; 3+2+3+1+1 of them on two places: 2+6 and 2+4, then 6+2+6 and 8+2+2, then 12+2+2
    assert sign.core_seconds.likely == pytest.approx(20)
    assert (sign.core_seconds.low, sign.core_seconds.high) == (pytest.approx(15), pytest.approx(25))
    assert sign.wall_seconds.likely == pytest.approx(16)
    # 500 rows in each partition: half a second for them, and half a second in any case
    assert compare.core_seconds.likely == pytest.approx(2)
    assert compare.wall_seconds.likely == pytest.approx(2 + 1)
    assert found.core_seconds.likely == pytest.approx(20 + 2 + 30)
    assert found.wall_seconds.likely == pytest.approx(1 + 16 + 3 + tokenize.wall_seconds.likely)
    assert found.task_seconds.likely == pytest.approx(3)
    # 100 documents a task, of 12 and 20 bytes: rows and then the payload, on both places
    assert sign.spool_bytes.likely == pytest.approx(2 * 2 * 3200)
    assert found.spool_bytes == tokenize.spool_bytes
    assert (sign.stored_bytes.likely, compare.stored_bytes.likely) == (pytest.approx(32_000), pytest.approx(1600))
    assert (compare.stored_bytes.low, compare.stored_bytes.high) == (0, pytest.approx(16_000))
    assert found.stored_bytes.likely == pytest.approx(33_600 + tokenize.stored_bytes.likely)
    assert sign.peak_memory_bytes.likely == pytest.approx(50 * MIB + 100 * 40)
    assert compare.peak_memory_bytes.likely == pytest.approx(60 * MIB + 20 * 72 + 500 * 130 + 50 * 60)
    assert found.peak_memory_bytes == tokenize.peak_memory_bytes


def test_requests_of_every_stage() -> None:
    found = estimate_of(signed_plan([8 * MIB, 2 * MIB]), PLACE)
    sign, compare, tokenize = (stage.traffic for stage in found.stages)
    assert (sign.get, sign.head, sign.put, sign.bytes_up) == (5, 10, 10 + 10, 32_000)
    # Two batches read the plan and ten receipts; ten blocks of each partition; 20 clusters of one and five others.
    assert (compare.get, compare.head, compare.put) == (2 * (1 + 10) + 2 * 10 + 2 * 20 * 6, 2, 2 + 2)
    # The plan and tokenizer as ever; the two lists in each batch; for each task what was signed, and its two blocks.
    assert (tokenize.get, tokenize.put) == (5 * 2 + 5 * 2 + 10 + 20, 3 * 10 + 2 * 10)
    assert found.traffic == sign + compare + tokenize
    assert found.input_traffic.get == 2 * 10
    on_s3 = estimate_of(signed_plan([8 * MIB, 2 * MIB]), PLACE, "s3://bucket/x")
    assert (on_s3.stages[0].traffic.head, on_s3.stages[1].traffic.head) == (20, 4)
    assert on_s3.stages[1].wall_seconds.likely > found.stages[1].wall_seconds.likely  # many small requests


def test_near_duplicates_are_compared_by_every_band() -> None:
    plan = signed_plan([8 * MIB, 2 * MIB], dedup={"exact": True, "near": {"bands": 4}})
    compare = estimate_of(plan, PLACE).stages[1]
    assert compare.core_seconds.likely == pytest.approx(2 * (0.5 + 5 * 0.5))
    assert compare.traffic.get == 2 * (1 + 10) + 5 * 2 * 10 + 2 * 2 * 20 * 6


def test_array_jobs_of_every_stage() -> None:
    slurm = Place("slurm", 2, SlurmSite(max_parallel=2, batch_bytes=2 * MIB, poll_seconds=4))
    sign, compare, _ = estimate_of(signed_plan([8 * MIB, 2 * MIB]), slurm).stages
    assert (sign.batches, compare.batches) == (5, 2)
    assert sign.wall_seconds.likely == pytest.approx(3 * (2 + 4) + 5 + 2)  # three waves, the queue, and half a look
    assert compare.wall_seconds.likely == pytest.approx(3 + 5 + 2)


def test_a_workers_first_unit_takes_longer() -> None:
    cold = DedupRates(**{**DEDUP.__dict__, "sign_start_cpu_seconds": 0.5, "compare_start_cpu_seconds": 0.25})
    sign, compare, _ = estimate_of(signed_plan([8 * MIB, 2 * MIB]), PLACE, dedup=cold).stages
    assert sign.core_seconds.likely == pytest.approx(20 + 5 * 0.5)
    assert compare.core_seconds.likely == pytest.approx(2 + 2 * 0.25)
    assert compare.wall_seconds.likely == pytest.approx(3 + 0.25)


def test_blocks_that_are_empty_are_not_asked_for() -> None:
    assert filled(0, 4) == 0
    assert filled(1, 4) == pytest.approx(1)
    assert filled(2, 2) == pytest.approx(1.5)
    assert filled(1e6, 4) == pytest.approx(4)


def test_a_large_partition_is_read_in_shares() -> None:
    assert shares(signed_plan([100 * MIB], partitions=1), DEDUP) == 1
    many = DedupRates(**{**DEDUP.__dict__, "documents": Rate(0.05, 0.0)})
    assert shares(signed_plan([100 * MIB], partitions=1), many) == 5


# ── against real runs ────────────────────────────────────────────────────────────────────────────────────────────────
def write_corpus(base: Path, *, originals: int, copies: int, edits: int) -> None:
    """Every original so many times more, as it is and edited, in any order; and a tokenizer."""
    texts = [original(number) for number in range(originals) for _ in range(1 + copies)]
    texts += [edited(original(number), seed, 1) for number in range(originals) for seed in range(edits)]
    random.Random(1).shuffle(texts)
    records = [record(f"{number}", text) for number, text in enumerate(texts)]
    (base / "raw").mkdir()
    (base / "raw" / "a.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    write_tokenizer(base / "tok")


def config_in(base: Path, task_bytes: int, partition_bytes: int) -> PreprocessConfig:
    return dedup_config(base, {**BOTH, "partition_bytes": partition_bytes}, tasks={"bytes": task_bytes},
                        heartbeat_seconds=0, split={"validation_fraction": 0.0})  # fmt: skip


def total(receipts: Sequence[SignReceipt | CompareReceipt | Receipt]) -> Traffic:
    return sum((receipt.traffic for receipt in receipts if receipt.traffic is not None), Traffic())


def requests(traffic: Traffic) -> dict[str, int]:
    """But for the bytes that come: a folder is read through a buffer, and counts what that holds."""
    return {name: count for name, count in traffic if name not in ("bytes_down", "bytes_up")}


def one_batch_each(store: Store, plan: Plan, spool: Path) -> None:
    for stage in stages_of(plan):
        assert TaskBatch(store.uri, tuple(unit.id for unit in stage.units), str(spool)).run() == {}


def check_requests(tmp_path: Path, target: str, *, s3: bool) -> None:
    """With so many duplicates that every list is full, what is said of them is no upper bound but what happens."""
    write_corpus(tmp_path, originals=70, copies=7, edits=9)
    config = config_in(tmp_path, 60_000, 400_000).model_copy(update={"store": target})
    store = open_target(config)
    plan = store_plan(store, *make_plan(config))
    assert plan.partitions == 3
    one_batch_each(store, plan, tmp_path / "spool")
    sign, compare, _ = ([unit.id for unit in stage.units] for stage in stages_of(plan))
    signs = list(read_all(store, sign, parse_sign).values())
    compares = list(read_all(store, compare, parse_compare).values())
    tasks = list(read_receipts(store, plan.tasks).values())

    rates = dedup_rates_from_run(plan, signs, compares, 0.0)
    said = sign_traffic(plan, rates, 1, s3=s3)
    assert (requests(said), said.bytes_up) == (requests(total(signs)), total(signs).bytes_up)
    said = compare_traffic(plan, rates, 1, s3=s3)
    assert requests(said) == requests(total(compares))
    assert said.bytes_up == pytest.approx(total(compares).bytes_up, rel=0.01)
    shards = [shard.bin.size for receipt in tasks for shard in receipt.shards]
    said = store_traffic(plan, 1, shards, 0, s3=s3) + lists_traffic(plan, rates, 1)
    assert requests(said + Traffic(put=2 * len(tasks))) == requests(total(tasks))  # a profile and the receipt


def test_requests_are_those_that_the_receipts_counted(tmp_path: Path) -> None:
    check_requests(tmp_path, str(tmp_path / "store"), s3=False)


def test_requests_to_object_storage_are_those_that_the_receipts_counted(tmp_path: Path, s3_uri: str) -> None:
    check_requests(tmp_path, s3_uri, s3=True)


def test_requests_of_the_driver_are_those_that_it_counted(tmp_path: Path) -> None:
    checked = open_store(str(tmp_path / "checked"))
    check_publish_once(checked)
    assert requests(checked.traffic.total()) == requests(PROBE_TRAFFIC)

    write_corpus(tmp_path, originals=40, copies=1, edits=0)
    config = config_in(tmp_path, 10_000, 30_000)
    plan, _ = make_plan(config)
    done = run_preprocess(config, lambda folder: HereBackend(places=2))
    # Batches of this backend end at once, so that nobody asks for the receipts of batches at work.
    said = driver_traffic(plan, [Watched(len(stage.units), 0.0, 0) for stage in stages_of(plan)], s3=False)
    of_the_estimate = Traffic(list=1, put=1)
    assert requests(said) == requests(done.traffic + of_the_estimate)


def expected_rows(config: PreprocessConfig) -> dict[str, Row]:
    """Run it in this process; predicted against happened."""
    result = run_preprocess(config, lambda folder: HereBackend(places=2), place=PLACE)
    status = store_status(open_target(config))
    assert status.estimate is not None
    assert status.estimate.compared == result.estimate  # the driver and who looks later say the same
    return {row.what: row for row in result.estimate}


def test_a_probe_measures_all_stages_and_comes_true(tmp_path: Path) -> None:
    write_corpus(tmp_path, originals=100, copies=1, edits=1)
    config = config_in(tmp_path, 40_000, 100_000)
    plan, tokenizer = make_plan(config)
    assert (len(plan.tasks), plan.partitions) == (8, 3)
    seen: list[tuple[int, int]] = []
    estimate = estimate_by_probe(plan, tokenizer, PLACE, open_target(config), driver_seconds=0.0, total_bytes=400_000,
                                 on_progress=lambda *now: seen.append(now))  # fmt: skip
    assert not (tmp_path / "store").exists()
    assert seen[-1] == (2 * estimate.ranges, 2 * estimate.ranges)
    assert not any("de-duplication" in warning for warning in estimate.warnings)
    store_plan(open_target(config), plan, tokenizer)
    save_estimate(open_target(config), estimate)

    rows = expected_rows(config)
    # The whole input was probed, so that what is known before duplicates is known exactly.
    assert rows["documents before duplicates"].happened == 300
    assert rows["documents before duplicates"].error == 0
    assert rows["sign: stored"].error == rows["sign: sent to the store"].error == 0
    assert rows["sign: requests for input"].error == rows["tokenize: requests for input"].error == 0
    assert 0 < rows["tokens"].happened < rows["tokens"].predicted
    for stage in ("sign", "compare", "tokenize"):
        assert rows[f"{stage}: CPU time"].happened > 0
        assert rows[f"{stage}: CPU time"].predicted > 0
        assert rows[f"{stage}: peak memory"].predicted > 10 * MIB
        asked = rows[f"{stage}: requests to the store"]
        assert asked.happened == pytest.approx(asked.predicted, rel=0.25), stage
    for what in ("CPU time", "requests to the store", "stored"):
        parts = [rows[f"{stage}: {what}"].happened for stage in ("sign", "compare", "tokenize")]
        whole = rows["CPU time of tasks" if what == "CPU time" else what].happened
        assert whole == pytest.approx(sum(parts))
    assert rows["wall time"].happened > 0
    assert rows["requests of the driver"].happened > 0

    shown = CliRunner().invoke(cli, ["status", str(tmp_path / "store")]).output
    assert "upper bounds" in shown
    assert "compare: CPU time" in shown


def test_a_small_job_is_estimated_from_the_first_receipts_of_each_stage(tmp_path: Path) -> None:
    write_corpus(tmp_path, originals=40, copies=1, edits=0)
    config = config_in(tmp_path, 10_000, 30_000)
    rows = expected_rows(config)
    status = store_status(open_target(config))
    assert status.estimate is not None
    predicted = status.estimate.predicted
    assert (predicted.source, [stage.name for stage in predicted.stages]) == (
        "receipts", ["sign", "compare", "tokenize"]
    )  # fmt: skip
    assert rows["sign: stored"].predicted == pytest.approx(rows["sign: stored"].happened, rel=0.3)
    assert rows["compare: CPU time"].predicted > 0


def test_what_cannot_be_known_is_said(tmp_path: Path) -> None:
    write_corpus(tmp_path, originals=10, copies=1, edits=0)
    path = tmp_path / "config.json"
    path.write_text(config_in(tmp_path, 10_000, 30_000).model_dump_json(), encoding="utf-8")
    done = CliRunner().invoke(cli, ["plan", "preprocess", "--config", str(path)])
    assert done.exit_code == 0, done.output
    assert "what de-duplication will drop is not known before it has run" in done.output
    assert "tokens before duplicates" in done.output
    assert "compare" in done.output
    assert "0.000" not in done.output
