"""Cleaning in a whole preprocessing: what the ledger, the printed result and the status say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmbatch.cli.preprocess import as_dict, print_result
from lmbatch.cli.show_store import print_store
from lmbatch.config import PreprocessConfig
from lmbatch.errors import ConfigError
from lmbatch.launch import PreprocessResult, open_target
from lmbatch.preprocess import load_plan, make_plan, read_receipts
from lmbatch.report import store_status
from lmbatch.store import Manifest, Traffic, open_store
from support.drive import contents, preprocess_here
from support.wudao import config_for, record_of, write_tokenizer


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    records = [record_of(number) for number in range(60)]
    for record in records[:10]:
        record["content"] = f"<p>{record['title']} {record['content']}</p>"
    for record in records[10:14]:
        record["content"] += "电话：13812345678"
    records[14]["content"] = "太短"
    records[15]["content"] = "点击查看" * 50
    (tmp_path / "raw" / "part-2021.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    write_tokenizer(tmp_path / "tok")
    return tmp_path


def settings(base: Path, **changes: Any) -> PreprocessConfig:
    corpus = {"metadata_fields": ["title"]}
    return config_for(base, corpus=corpus, **{"cleaning": {"preset": "zh_web"}, **changes})


def test_the_ledger_counts_what_was_changed_and_what_was_dropped(base: Path) -> None:
    ledger = preprocess_here(settings(base)).ledger
    assert ledger.records == 60
    assert ledger.documents_out == 58
    assert ledger.dropped == {"repeated_ngrams": 1, "too_short": 1}
    assert ledger.quarantined == {}
    assert {name: ledger.changed[name] for name in ("html", "title", "phone_numbers")} == {
        "html": 10,
        "title": 10,
        "phone_numbers": 4,
    }
    assert list(ledger.changed) == sorted(ledger.changed)


def test_the_ledger_is_the_same_for_other_tasks(base: Path) -> None:
    few = preprocess_here(settings(base, tasks={"bytes": 10**9}, store=str(base / "few")))
    many = preprocess_here(settings(base, tasks={"bytes": 3000}, store=str(base / "many")))
    assert few.ledger == many.ledger
    again = preprocess_here(settings(base, tasks={"bytes": 3000}, store=str(base / "again")))
    assert again.digest == many.digest
    assert contents(open_store(str(base / "again"))) == contents(open_store(str(base / "many")))


def test_no_cleaning_changes_nothing_and_counts_nothing(base: Path) -> None:
    ledger = preprocess_here(settings(base, cleaning={"preset": "none"})).ledger
    assert (ledger.documents_out, ledger.changed, ledger.dropped) == (60, {}, {})


def result_of(config: PreprocessConfig, manifest: Manifest) -> PreprocessResult:
    return PreprocessResult(
        store=config.store, manifest=manifest, tasks=1, tasks_done=1, seconds=1, input_bytes=1, peak_memory_bytes=1,
        cpu_seconds=1, traffic=Traffic(),
    )  # fmt: skip


def test_the_printed_ledger_and_the_status_show_it(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings(base)
    result = result_of(config, preprocess_here(config))
    print_result(result)
    printed = capsys.readouterr().out
    assert "+ 2 dropped (repeated_ngrams 1, too_short 1)" in printed
    assert "changed   documents by rule (html 10, " in printed
    assert as_dict(result)["ledger"]["changed"]["phone_numbers"] == 4
    print_store(store_status(open_target(config)))
    printed = capsys.readouterr().out
    assert "60 records = 58 documents + 2 dropped (repeated_ngrams 1, too_short 1) + 0 quarantined" in printed
    assert "changed by cleaning (html 10, " in printed


def test_cleaning_that_cannot_work_stops_the_plan_not_the_tasks(base: Path) -> None:
    words = base / "words.txt"
    words.write_text("赌场\n", encoding="utf-8")
    config = settings(base, cleaning={"blocked_words": str(words)})
    words.unlink()
    with pytest.raises(ConfigError, match="blocked_words"):
        make_plan(config)
    assert not (base / "store").exists()


def test_another_list_of_words_is_another_plan(base: Path) -> None:
    words = base / "words.txt"
    words.write_text("天下大势\n", encoding="utf-8")
    config = settings(base, cleaning={"blocked_words": str(words)})
    manifest = preprocess_here(config)
    assert manifest.ledger.dropped["blocked_word"] > 0
    store = open_target(config)
    plan = load_plan(store)  # the stored plan is whole, fingerprint and all
    assert len(read_receipts(store, plan.tasks)) == len(plan.tasks)
    words.write_text("分久必合\n", encoding="utf-8")
    other, _ = make_plan(settings(base, cleaning={"blocked_words": str(words)}))
    assert other.fingerprint != plan.fingerprint
