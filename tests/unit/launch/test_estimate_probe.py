"""The probe and the driver's part, with real processes: what was said stands beside the plan, and counts come true."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from lmbatch.config import PreprocessConfig, SiteConfig
from lmbatch.launch import open_target, place_of, run_preprocess
from lmbatch.launch.estimate import ProbeError, estimate_by_probe
from lmbatch.launch.estimate.probe import run_probe
from lmbatch.launch.estimate.worker import count_records
from lmbatch.preprocess import make_plan, open_raw
from lmbatch.preprocess.estimate import newest_estimate
from lmbatch.report import store_status
from lmbatch.store import Store, open_store
from support.here_backend import HereBackend
from support.wudao import config_for, record_of, text_of, write_files, write_tokenizer

PLACE = place_of(SiteConfig(name="test"), "local", 2)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_files(tmp_path / "raw", files=3, documents=120)
    write_tokenizer(tmp_path / "tok")
    return tmp_path


def lmbatch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lmbatch", *arguments], capture_output=True, text=True, check=False)


def config_file(base: Path, **changes: Any) -> str:
    path = base / "config.yaml"
    settings = config_for(base, **changes).model_dump(mode="json")
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return str(path)


# ── a job that was planned first ─────────────────────────────────────────────────────────────────────────────────────
def test_what_was_said_is_kept_and_compared(base: Path) -> None:
    config = config_file(base, tasks={"bytes": 30_000})
    store = str(base / "store")
    planned = lmbatch("plan", "preprocess", "--config", config, "--workers", "2", "--save", "--json")
    assert planned.returncode == 0, planned.stderr
    said = json.loads(planned.stdout)
    estimate = said["estimate"]
    assert (estimate["tasks"], estimate["plan"]) == (said["tasks"], said["fingerprint"])
    before = json.loads(lmbatch("status", store, "--json").stdout)["estimate"]
    assert before["predicted"]["tokens"] == estimate["tokens"]
    assert before["compared"] == []

    done = lmbatch("preprocess", "--config", config, "--workers", "2", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["what"]: row for row in json.loads(done.stdout)["estimate"]}
    status = json.loads(lmbatch("status", store, "--json").stdout)
    assert {row["what"]: row for row in status["estimate"]["compared"]} == rows
    assert len(list(open_store(store).list("estimates/"))) == 2  # the one that was saved, and what became of it

    # The whole input was probed, so what it gives is known exactly; what it takes, within wide bounds.
    assert rows["tasks"]["error"] == rows["documents"]["error"] == rows["tokens"]["error"] == 0
    assert abs(rows["shards"]["error"]) < 0.2
    for what in ("peak memory", "stored", "requests to the store", "requests for input", "input read"):
        assert 0.5 < rows[what]["happened"] / rows[what]["predicted"] < 2, what
    for what in ("wall time", "CPU time of tasks", "requests of the driver"):
        assert 0.02 < rows[what]["happened"] / rows[what]["predicted"] < 50, what
    assert rows["wall time"]["happened"] > 0

    shown = lmbatch("status", store).stdout
    assert "predicted" in shown
    assert "peak memory" in shown


def test_without_a_probe_nothing_is_said_and_nothing_saved(base: Path) -> None:
    config = config_file(base)
    planned = lmbatch("plan", "preprocess", "--config", config, "--no-probe", "--json")
    assert json.loads(planned.stdout)["estimate"] is None
    assert lmbatch("plan", "preprocess", "--config", config, "--no-probe", "--save").returncode == 2
    shown = lmbatch("plan", "preprocess", "--config", config).stdout
    assert "likely" in shown
    assert not (base / "store").exists()
    refused = lmbatch("plan", "preprocess", "--config", config, "--probe-bytes", "many")
    assert (refused.returncode, "--probe-bytes" in refused.stderr) == (2, True)


# ── a job that was not ───────────────────────────────────────────────────────────────────────────────────────────────
def run(config: PreprocessConfig) -> Store:
    result = run_preprocess(config, lambda folder: HereBackend(), place=PLACE)
    assert result.traffic.put > 0
    return open_target(config)


def test_a_small_job_is_estimated_from_its_first_receipts(base: Path) -> None:
    config = config_for(base)
    store = run(config)
    status = store_status(store)
    assert status.estimate is not None
    assert status.estimate.predicted.source == "receipts"
    assert status.estimate.predicted.ranges < status.tasks
    rows = {row.what: row for row in status.estimate.compared}
    assert rows["tasks"].error == 0
    assert rows["tokens"].predicted == pytest.approx(rows["tokens"].happened, rel=0.3)
    again = run(config)  # nothing is left to do, so there is nothing new to say
    assert store_status(again).estimate == status.estimate


def test_a_large_job_is_probed_first(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmbatch.launch.estimate.keeping.PROBE_FROM_BYTES", 1000)
    status = store_status(run(config_for(base)))
    assert status.estimate is not None
    assert status.estimate.predicted.source == "probe"
    assert {row.what for row in status.estimate.compared} >= {"wall time", "requests of the driver"}


def test_a_probe_that_fails_does_not_stop_the_run(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmbatch.launch.estimate.keeping.PROBE_FROM_BYTES", 1000)
    monkeypatch.setattr("lmbatch.launch.estimate.probe.__package__", "lmbatch.nowhere")  # the process ends at once
    status = store_status(run(config_for(base)))
    assert status.tasks_done == status.tasks
    assert status.estimate is None


def test_an_estimate_of_another_plan_or_place_is_not_this_ones(base: Path) -> None:
    config = config_for(base)
    store = run(config)
    plan, _ = make_plan(config)
    found = newest_estimate(store, plan.fingerprint)
    assert found is not None
    assert newest_estimate(store, "sha256:other") is None
    store.put(f"{found[0]}.json", b"{}")  # damaged: as if there were none
    assert newest_estimate(store, plan.fingerprint) is None


# ── what the probe measures ──────────────────────────────────────────────────────────────────────────────────────────
def test_the_process_says_why_it_cannot(base: Path) -> None:
    plan, tokenizer = make_plan(config_for(base))
    (base / "raw" / plan.files[0].path).write_text("[]", encoding="utf-8")
    with pytest.raises(ProbeError, match="has changed since the plan was made"):
        run_probe(plan, tokenizer)


def test_progress_and_a_time_limit(base: Path) -> None:
    plan, tokenizer = make_plan(config_for(base))
    seen: list[tuple[int, int]] = []
    measured = run_probe(plan, tokenizer, total_bytes=8000, on_progress=lambda *now: seen.append(now))
    assert seen[-1] == (8, 8)
    assert measured.startup_seconds > 0
    assert measured.first is not None
    assert 500 < measured.receipts[0].input_bytes < 1500
    limited = run_probe(plan, tokenizer, total_bytes=8000, seconds=0.0)
    assert len(limited.receipts) == 1


def other_format(base: Path, kind: str) -> PreprocessConfig:
    """The same documents in a layout that cannot be cut anywhere."""
    folder = base / kind
    folder.mkdir()
    rows = [record_of(number) for number in range(600)]
    text = {"format": kind, "raw": str(folder), "text_fields": ["content"], "include": ["*"]}
    if kind == "csv":
        with (folder / "a.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet", row_group_size=300)
    elif kind == "txt_files":
        for number in range(600):
            (folder / f"{number:03d}.txt").write_text(text_of(number), encoding="utf-8")
        text |= {"id_field": None}
    else:
        kind = "json_lines"
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
        text |= {"format": kind}
    return config_for(base, corpus=text, tasks={"bytes": "64MiB"})


@pytest.mark.parametrize("kind", ["csv", "parquet", "txt_files", "gzip"])
def test_files_that_cannot_be_cut(base: Path, kind: str) -> None:
    config = other_format(base, kind)
    plan, tokenizer = make_plan(config)
    estimate = estimate_by_probe(
        plan, tokenizer, PLACE, open_target(config), driver_seconds=0.0, total_bytes=plan.input_bytes // 2
    )
    # By its beginning, by whole files or by all of it: six hundred documents, more or less.
    assert 400 < estimate.documents.likely < 900
    assert estimate.tasks == len(plan.tasks)


def test_records_of_the_first_bytes(base: Path) -> None:
    plan, _ = make_plan(other_format(base, "csv"))
    [piece] = plan.tasks[0].pieces
    whole = count_records(plan, open_raw(plan), piece, piece.bytes * 2)
    assert whole == (600, piece.bytes)
    records, size = count_records(plan, open_raw(plan), piece, piece.bytes // 4)
    assert piece.bytes // 4 <= size < piece.bytes // 3
    assert 100 < records < 200
