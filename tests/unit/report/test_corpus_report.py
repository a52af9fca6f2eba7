"""The report of a corpus: its facts add up, and its page says them, for stores in every state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmbatch.cli import cli
from lmbatch.config import PreprocessConfig, fingerprint, load_config
from lmbatch.errors import ObjectNotFoundError
from lmbatch.preprocess import run_task
from lmbatch.preprocess.profile import Counts
from lmbatch.report import CorpusReport, corpus_page, corpus_report
from lmbatch.report.corpus import merge_profiles, ranked_sources
from lmbatch.report.html.elements import Html, element, text
from lmbatch.report.html.figures import duration, share, short, size
from lmbatch.report.html.samples import marked_changes
from lmbatch.report.html.work import settings_yaml
from lmbatch.store import Store, open_store, parse_manifest
from support.drive import prepare, preprocess_here
from support.wudao import config_for, write_files, write_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reported")
    write_files(folder / "raw", files=3, documents=20)
    write_tokenizer(folder / "tok")
    odd: list[Any] = [{"uniqueKey": f"short-{n}", "content": f"短{n}"} for n in range(8)] + [{"content": 7}]
    (folder / "raw" / "part-9.json").write_text(json.dumps(odd, ensure_ascii=False), encoding="utf-8")
    return folder


def config_of(base: Path, name: str = "store", **changes: Any) -> PreprocessConfig:
    return config_for(
        base, store=str(base / name), corpus={"metadata_fields": ["dataType"]},
        cleaning={"min_characters": 5, "whitespace": True}, report={"source_field": "dataType"}, **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(base: Path) -> CorpusReport:
    config = config_of(base)
    preprocess_here(config)
    return corpus_report(open_store(config.store))


def test_the_facts_are_those_of_the_manifest(whole: CorpusReport, base: Path) -> None:
    manifest = parse_manifest((base / "store" / "manifest.json").read_bytes(), "manifest")
    assert whole.finished
    assert whole.digest == manifest.digest
    assert whole.ledger == manifest.ledger
    assert whole.ledger.dropped == {"too_short": 8}
    for split, totals in whole.splits.items():
        assert totals.tokens == manifest.tokens(split)
        assert totals.documents == manifest.ledger.documents[split]
        assert totals.documents == sum(whole.profile.tokens[split].values())
        assert totals.documents == sum(whole.profile.characters[split].values())
    for counts in (whole.profile.sources, whole.profile.values):
        found = sum(counts.values(), Counts())
        if counts is whole.profile.values:
            found += whole.profile.without_value
        assert found.tokens == whole.total.tokens
        assert found.dropped == whole.ledger.records_dropped
        assert found.quarantined == whole.ledger.records_quarantined
    assert whole.problems == ()
    assert whole.tasks == whole.tasks_done == whole.profile.tasks


def test_the_page_says_them(whole: CorpusReport) -> None:
    page = corpus_page(whole)
    assert page.startswith("<!doctype html>\n<html")
    for words in (
        str(whole.digest), "finished", "too_short", "text_not_a_string", "whitespace", "法律", "part-9.json",
        f"{whole.total.tokens:,}", "The sum is right", "短", "task-000000", "min_characters: 5",
        "lmbatch verify file://", "Quarantined", "专利",
    ):  # fmt: skip
        assert words in page, words
    assert "<script" not in page
    assert "src=" not in page
    assert page == corpus_page(whole)


def test_merging_profiles_does_not_depend_on_their_order(whole: CorpusReport, base: Path) -> None:
    store = open_store(str(base / "store"))
    entries = [entry for info in store.list("receipts/") if (entry := _profile_of(store, info.key)) is not None]
    backwards = merge_profiles(store, reversed(entries))
    assert backwards.samples == whole.profile.samples
    assert backwards.tokens == whole.profile.tokens
    assert backwards.sources == whole.profile.sources
    reasons = [(sample.kind, sample.reason) for sample in whole.profile.samples]
    assert reasons.count(("dropped", "too_short")) == 3  # of eight, and however many tasks kept three


def _profile_of(store: Store, key: str) -> Any:
    from lmbatch.store import parse_receipt

    return parse_receipt(store.read(key), key).profile


def test_a_store_that_is_not_finished(base: Path) -> None:
    store, raw, plan, encoder = prepare(config_of(base, "half"))
    nothing = corpus_report(store)
    assert nothing.tasks_done == 0
    assert f"not finished: 0 of {len(plan.tasks)} tasks" in corpus_page(nothing)
    for task in plan.tasks[:2]:
        run_task(store, raw, plan, task, encoder, base / "spool")
    half = corpus_report(store)
    assert not half.finished
    assert half.digest is None
    assert f"not finished: 2 of {len(plan.tasks)} tasks" in corpus_page(half)
    for task in plan.tasks[2:]:
        run_task(store, raw, plan, task, encoder, base / "spool")
    assert "the manifest is missing" in corpus_page(corpus_report(store))


def test_no_plan_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFoundError):
        corpus_report(open_store(str(tmp_path)))


def test_nothing_dropped_and_nothing_noted(base: Path) -> None:
    config = config_for(
        base, corpus={"include": ["part-2*.json"]}, store=str(base / "plain"), report={"samples_per_reason": 0}
    )
    preprocess_here(config)
    page = corpus_page(corpus_report(open_store(config.store)))
    assert "Dropped, by reason: none." in page
    assert "Quarantined, by reason: none." in page
    assert "No samples were kept" in page


def test_receipts_without_profiles_are_told(base: Path) -> None:
    config = config_of(base, "old")
    preprocess_here(config)
    store = open_store(config.store)
    for info in list(store.list("receipts/")):
        receipt = json.loads(store.read(info.key))
        del receipt["profile"], receipt["seal"]  # an older lmbatch wrote neither
        store.put(info.key, json.dumps(receipt).encode())
    report = corpus_report(store)
    page = corpus_page(report)
    assert report.finished
    assert f"leave out {report.tasks} of {report.tasks} tasks" in page
    assert "Nothing was noted" in page


def test_a_damaged_profile_or_manifest_is_a_problem_and_no_failure(base: Path) -> None:
    config = config_of(base, "damaged")
    preprocess_here(config)
    store = open_store(config.store)
    first, second = [info.key for info in store.list("profiles/")][:2]
    store.put(first, b"{}")
    store.delete(second)
    store.put("manifest.json", b"[]")
    report = corpus_report(store)
    assert len(report.problems) == 3
    assert report.digest is None
    assert first in corpus_page(report)


def test_a_corpus_that_is_cut_shows_what_was_thrown_away(base: Path) -> None:
    config = config_of(base, "cut", chunking={"mode": "drop_short", "length": 64})
    preprocess_here(config)
    report = corpus_report(open_store(config.store))
    page = corpus_page(report)
    assert report.ledger.tokens is not None
    assert "Cut into examples" in page
    assert f"{report.ledger.tokens.lost:,}" in page
    assert sum(counts.tokens for counts in report.profile.sources.values()) == report.total.tokens


def test_clusters_of_duplicates_are_shown(base: Path) -> None:
    raw = base / "doubled"
    raw.mkdir()
    records = [{"uniqueKey": str(n), "content": f"第{n % 7}篇文章，讲的是同一件事情。"} for n in range(30)]
    (raw / "part-0.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    config = config_for(base, corpus={"raw": str(raw)}, store=str(base / "deduped"), dedup={"exact": True})
    preprocess_here(config)
    report = corpus_report(open_store(config.store))
    (found,) = report.duplicates
    assert found.sizes == {4: 5, 5: 2}
    assert report.ledger.dropped == {"duplicate": 23} == {"duplicate": sum((s - 1) * n for s, n in found.sizes.items())}
    assert [entry.size for entry in found.largest] == [5, 5, 4, 4, 4, 4, 4]
    page = corpus_page(report)
    assert "23 documents dropped, 7 clusters" in page
    assert "and 1 more" in page
    assert json.loads(json.dumps(report.to_dict()))["duplicates"]["duplicate"]["clusters"] == 7
    dropped = [sample for sample in report.profile.samples if sample.kind == "dropped"]
    assert len(dropped) == 3
    assert all("同一件事情" in sample.text for sample in dropped)


def test_the_settings_on_the_page_make_the_same_corpus(base: Path, tmp_path: Path) -> None:
    config = config_of(base)
    path = tmp_path / "corpus.yaml"
    path.write_text(settings_yaml(config), encoding="utf-8")
    assert fingerprint(load_config(PreprocessConfig, path)) == fingerprint(config)


def test_the_command_writes_the_page_and_prints_the_facts(
    whole: CorpusReport, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    cli.main(["report", str(base / "store"), "--out", str(out)], standalone_mode=False)
    assert out.read_text(encoding="utf-8") == corpus_page(whole)
    assert "finished" in capsys.readouterr().out
    cli.main(["report", str(base / "store"), "--json"], standalone_mode=False)
    facts = json.loads(capsys.readouterr().out)
    assert facts["ledger"]["dropped"] == {"too_short": 8}
    assert facts["profile"]["values"]["法律"]["documents"] == 60
    assert facts["profile"]["samples"]


def test_many_files_are_shown_by_folder_or_together() -> None:
    one = Counts(documents=1, tokens=10)
    by_folder = ranked_sources({f"{n % 5}/{n}.json": one for n in range(100)}, 20)
    assert [(row.name, row.counts.tokens, row.together) for row in by_folder] == [
        (f"{n}/", 200, 20) for n in range(5)
    ]  # fmt: skip
    flat = ranked_sources({f"{n:03d}.json": Counts(tokens=n) for n in range(100)}, 20)
    assert len(flat) == 20
    assert flat[0].name == "099.json"
    assert (flat[-1].name, flat[-1].together) == ("", 81)
    assert sum(row.counts.tokens for row in flat) == sum(range(100))


@given(st.text(), st.text())
def test_text_never_becomes_markup(value: str, attribute: str) -> None:
    made = element("p", value, title=attribute)
    inner = made.removeprefix("<p").removesuffix("</p>")
    assert "<" not in inner.replace('<span class="code">', "").replace("</span>", "")
    assert inner.count('"') == 2 + 2 * inner.count('<span class="code">')
    assert isinstance(text(made), Html)
    assert text(made) == made


def test_what_cannot_be_seen_is_shown_by_its_code() -> None:
    assert text("a\u202eb\x00") == 'a<span class="code">U+202E</span>b<span class="code">U+0000</span>'


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("<p>一段", "一段", ("<del>&lt;p&gt;</del>一段", "一段")),
        ("甲　乙丙…", "甲 乙丙丁…", ("甲<del>　</del>乙丙…", "甲<ins> </ins>乙丙丁…")),
        ("甲　乙丙丁…", "甲 乙丙丁…", ("甲<del>　</del>乙丙丁…", "甲<ins> </ins>乙丙丁…")),
        ("甲\n\n乙", "甲\n乙", ("甲\n<del>↵\n</del>乙", "甲\n乙")),
    ],
)
def test_changes_are_marked_but_not_where_both_were_cut(before: str, after: str, expected: tuple[str, str]) -> None:
    assert marked_changes(before, after) == expected


def test_figures_are_never_rounded_to_nothing_or_all() -> None:
    assert [share(n, 10_000) for n in (0, 1, 10, 5000, 9999, 10_000)] == [
        "0.0 %", "< 0.1 %", "0.1 %", "50.0 %", "> 99.9 %", "100.0 %",
    ]  # fmt: skip
    assert share(1, 0) == "–"
    assert [size(n) for n in (0, 1023, 1536, 2**31, 3 * 2**40)] == ["0 B", "1023 B", "1.5 KiB", "2.0 GiB", "3.0 TiB"]
    assert [duration(n) for n in (4.2, 61, 3725)] == ["4.2 s", "1 min 1 s", "1 h 2 min"]
    assert [short(n) for n in (512, 8192, 16384, 2**20)] == ["512", "8192", "16k", "1.0M"]
