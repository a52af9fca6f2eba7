"""What tasks note for the report adds up, is the same for every run, and shows no personal data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmbatch.config import CleaningConfig, PreprocessConfig
from lmbatch.corpus import Document, Rejected, build_cleaner, build_redactor
from lmbatch.errors import StoreError
from lmbatch.preprocess import load_plan, read_receipts, verify_store
from lmbatch.preprocess.profile import (
    Profiler,
    TaskProfile,
    count_into,
    folder_depth,
    name_at,
    parse_profile,
    quantile,
    upper_end,
)
from lmbatch.preprocess.profile.histogram import lower_end
from lmbatch.preprocess.profile.samples import draw_of, excerpts, first_difference
from lmbatch.preprocess.profile.sources import ValueTallies
from lmbatch.store import Ledger, Receipt, open_store, parse_receipt
from support.drive import contents, preprocess_here
from support.wudao import config_for, write_files, write_tokenizer

PHONE, IDENTITY = "13800138000", "11010519491231002X"
ZH_WEB = CleaningConfig(preset="zh_web", min_chinese_share=0.0, min_characters=5, max_ngram_share=1.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with records of every fate: kept, changed, dropped, quarantined."""
    folder = tmp_path_factory.mktemp("profiled")
    write_files(folder / "raw")
    write_tokenizer(folder / "tok")
    odd: list[Any] = [
        {"uniqueKey": f"odd-{n}", "dataType": kind, "title": "", "content": text}
        for n, (kind, text) in enumerate(
            [
                ("百科", f"请拨打{PHONE}联系张先生，他的身份证号是{IDENTITY}，欢迎来电。"),
                ("百科", f"<p>请拨打{PHONE[:3]}\u200b{PHONE[3:]}联系李女士，欢迎来电垂询。</p>"),
                ("百科", "<p>一段话&nbsp;&amp;另一段话，写得很长很长。</p>"),
                (None, "太短"),
                (["甲", "乙"], f'<a href="tel:{PHONE}"></a>'),
            ]
        )
    ]
    odd += [{"uniqueKey": "broken", "content": 7, "phone": PHONE}]
    (folder / "raw" / "part-9.json").write_text(json.dumps(odd, ensure_ascii=False), encoding="utf-8")
    return folder


def config_of(base: Path, **changes: Any) -> PreprocessConfig:
    fields = {"text_fields": ["content"], "metadata_fields": ["dataType", "title"]}
    return config_for(
        base, corpus=fields, cleaning=ZH_WEB.model_dump(exclude_none=True), report={"source_field": "dataType"},
        budget={"max_quarantined_records": 5}, **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(base: Path) -> list[tuple[Receipt, TaskProfile]]:
    config = config_of(base)
    preprocess_here(config)
    return profiles_of(config.store)


def profiles_of(uri: str) -> list[tuple[Receipt, TaskProfile]]:
    store = open_store(uri)
    receipts = read_receipts(store, load_plan(store).tasks).values()
    return [
        (receipt, parse_profile(store.read(receipt.profile.key), receipt.profile.key))
        for receipt in receipts
        if receipt.profile
    ]


def test_every_count_adds_up_to_the_ledger(found: list[tuple[Receipt, TaskProfile]]) -> None:
    assert len(found) > 5
    for receipt, profile in found:
        for histogram in (profile.tokens, profile.characters):
            assert {split: sum(bins.values()) for split, bins in histogram.items()} == receipt.ledger.documents
        by_value = [*profile.values.values(), profile.other_values, profile.without_value]
        for counts in (list(profile.sources.values()), by_value):
            assert sum(c.documents for c in counts) == receipt.ledger.documents_out
            assert sum(c.dropped for c in counts) == receipt.ledger.records_dropped
            assert sum(c.quarantined for c in counts) == receipt.ledger.records_quarantined
            assert sum(c.tokens for c in counts) == sum(shard.tokens for shard in receipt.shards)
            assert sum(c.text_bytes for c in counts) == sum(shard.text_bytes for shard in receipt.shards)
        assert set(profile.sources) <= {piece.path for piece in receipt.pieces}
    ledger = Ledger.total(receipt.ledger for receipt, _ in found)
    assert ledger.dropped
    assert ledger.quarantined
    assert ledger.changed


def test_values_of_the_named_field_are_told_apart(found: list[tuple[Receipt, TaskProfile]]) -> None:
    last = found[-1][1]
    assert last.values["百科"].documents == 3
    assert last.values['["甲", "乙"]'].dropped == 1
    assert last.without_value.dropped == 1  # the one whose value is null
    assert last.without_value.quarantined == 1


def test_there_are_samples_of_every_fate_and_they_name_their_place(
    base: Path, found: list[tuple[Receipt, TaskProfile]]
) -> None:
    kinds: set[str] = set()
    for receipt, profile in found:
        kinds |= {sample.kind for sample in profile.samples}
        assert {s.reason for s in profile.samples if s.kind == "dropped"} == set(receipt.ledger.dropped)
        assert {s.reason for s in profile.samples if s.kind == "quarantined"} == set(receipt.ledger.quarantined)
        assert {s.reason for s in profile.samples if s.kind == "changed"} == set(receipt.ledger.changed)
        for sample in profile.samples:
            assert (base / "raw" / sample.path).read_bytes()[sample.position : sample.position + 1] == b"{"
    assert kinds == {"kept", "changed", "dropped", "quarantined"}
    html = [s for _, p in found for s in p.samples if (s.kind, s.reason) == ("changed", "html") and s.before]
    assert any(s.before and "&nbsp;" in s.before and "&nbsp;" not in s.text for s in html)


def test_no_personal_number_that_cleaning_takes_out_is_in_a_sample(found: list[tuple[Receipt, TaskProfile]]) -> None:
    shown = json.dumps([profile.model_dump() for _, profile in found], ensure_ascii=False)
    assert "[电话]" in shown
    assert "[身份证号]" in shown
    for secret in (PHONE, IDENTITY, PHONE[3:], IDENTITY[:17]):
        assert secret not in shown


@pytest.mark.parametrize(
    "text",
    [f"电话{PHONE}。", f"电话{PHONE[:3]}\u200b{PHONE[3:]}。", f"<b>电话{PHONE[:4]}&#8203;{PHONE[4:]}</b>",
     f"<a href='tel:{PHONE}'>来电</a>", f"号码 {IDENTITY}", f"号码 {IDENTITY[:6]}<b></b>{IDENTITY[6:]}"],
)  # fmt: skip
def test_what_is_shown_before_cleaning_holds_no_number_that_cleaning_would_find(text: str) -> None:
    shown = build_redactor(ZH_WEB)(text)
    assert shown is None or not (PHONE in shown or IDENTITY in shown)
    if shown is not None:
        cleaned = build_cleaner(ZH_WEB)(Document(shown, "a", 0))
        assert not isinstance(cleaned, Document) or "phone_numbers" not in cleaned.changed


def test_without_such_a_rule_texts_are_shown_as_they_are() -> None:
    redactor = build_redactor(CleaningConfig())
    assert not redactor.active
    assert redactor(f"电话{PHONE}") == f"电话{PHONE}"


@pytest.mark.parametrize("length", range(1, 18))
def test_a_number_that_the_end_of_an_excerpt_cuts_is_not_shown(base: Path, length: int) -> None:
    profiler = Profiler(config_of(base), "task-0", ["a.json"])
    why = Rejected("a.json", 5, 900, "invalid_json", "byte 7", "记录：他的号码是 " + IDENTITY[:length])
    profiler.rejected(why, why)
    (sample,) = profiler.finish().samples
    assert sample.text == "记录：他的号码是…"


def test_the_same_bytes_whoever_does_the_tasks_and_in_whatever_order(base: Path) -> None:
    first, other = config_of(base), config_of(base, store=str(base / "other"))
    preprocess_here(first)
    preprocess_here(other, shuffle=3)
    one, two = (contents(open_store(config.store)) for config in (first, other))
    assert one == two
    assert sum(key.startswith("profiles/") for key in one) == len(load_plan(open_store(other.store)).tasks)


def test_profiles_are_no_part_of_the_digest_and_can_be_without_text(base: Path) -> None:
    silent = config_of(base, store=str(base / "silent")).model_copy(
        update={"report": config_of(base).report.model_copy(update={"samples_per_reason": 0, "source_field": None})}
    )
    assert preprocess_here(silent).digest == preprocess_here(config_of(base)).digest
    for _, profile in profiles_of(silent.store):
        assert profile.samples == ()
        assert profile.values == {}
        assert profile.sources


def test_verify_reads_profiles_too(base: Path) -> None:
    config = config_of(base, store=str(base / "damaged"))
    preprocess_here(config)
    store = open_store(config.store)
    assert verify_store(store).right
    receipt = next(iter(read_receipts(store, load_plan(store).tasks).values()))
    assert receipt.profile is not None
    store.put(receipt.profile.key, store.read(receipt.profile.key).replace(b'"position"', b'"POSITION"'))
    assert any("sha256" in problem for problem in verify_store(store).problems[receipt.task])
    store.delete(receipt.profile.key)
    assert not verify_store(store).right


def test_receipts_from_before_there_were_profiles_are_right(base: Path) -> None:
    config = config_of(base, store=str(base / "old"))
    preprocess_here(config)
    store = open_store(config.store)
    for info in list(store.list("receipts/")):
        receipt = json.loads(store.read(info.key))
        store.delete(receipt.pop("profile")["key"])
        del receipt["seal"]
        store.put(info.key, json.dumps(receipt).encode())
        assert parse_receipt(store.read(info.key), info.key).profile is None
    assert verify_store(store).right


@pytest.mark.parametrize("data", [b"", b"[]", b'{"task": "a"}', b'{"task":"a","tokens":{"x":{}}}'])
def test_bytes_that_are_no_profile_are_refused(data: bytes) -> None:
    with pytest.raises(StoreError, match=r"profiles/a\.json: not a task's profile"):
        parse_profile(data, "profiles/a.json")


@given(st.integers(0, 10**9))
def test_a_length_lies_in_its_bin_and_bins_are_narrow(length: int) -> None:
    low = lower_end(length)
    assert low <= length < upper_end(low)
    assert upper_end(low) - low <= max(1, low // 4)
    assert lower_end(upper_end(low)) == upper_end(low)


@given(st.lists(st.integers(0, 5000), min_size=1), st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bin_of_the_true_one(lengths: list[int], share: float) -> None:
    bins: dict[int, int] = {}
    for length in lengths:
        count_into(bins, length)
    assert sum(bins.values()) == len(lengths)
    exact = next(n for n in sorted(lengths) if sum(m <= n for m in lengths) >= share * len(lengths))
    found = quantile(bins, share)
    assert found is not None
    assert lower_end(exact) <= found < upper_end(lower_end(exact))
    assert quantile({}, share) is None


def test_many_files_are_named_by_folder() -> None:
    paths = [f"a/{n % 3}/{n}.txt" for n in range(30)] + ["b/x.txt"]
    assert folder_depth(paths, 31) is None
    assert {name_at(path, folder_depth(paths, 10)) for path in paths} == {"a/0/", "a/1/", "a/2/", "b/x.txt"}
    assert {name_at(path, folder_depth(paths, 2)) for path in paths} == {"a/", "b/"}
    assert {name_at(path, folder_depth(paths, 1)) for path in paths} == {"/"}
    flat = [f"{n}.txt" for n in range(30)]
    assert {name_at(path, folder_depth(flat, 10)) for path in flat} == {"/"}


def test_very_many_values_are_bounded_and_none_is_lost() -> None:
    tallies = ValueTallies("field")
    for n in range(3000):
        tallies.of({"field": f"v{n:04d}"}).documents += 1
    for _ in range(5):
        tallies.of({"field": "v0007"}).tokens += 10
    values, other = tallies.stored()
    assert len(values) == 50
    assert values["v0007"].tokens == 50
    assert sum(counts.documents for counts in values.values()) + other.documents == 3000


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_excerpts_show_the_first_change(common: str, one: str, other: str) -> None:
    same = first_difference(common + one, common + other)
    assert (common + one)[:same] == (common + other)[:same]
    assert (common + one)[same : same + 1] != (common + other)[same : same + 1] or common + one == common + other
    before, after = excerpts(common + one, common + other, 60)
    assert (before is None) == (common + one == common + other)
    assert before is None or before != after
    assert max(len(after), len(before or "")) <= 62


def test_draws_depend_on_the_place_alone() -> None:
    assert draw_of("a.json", 1) == draw_of("a.json", 1)
    assert len({draw_of(path, position) for path in "ab" for position in range(1000)}) == 2000


def test_the_field_of_sources_must_be_read(base: Path) -> None:
    with pytest.raises(ValueError, match=r"'author' must be one of corpus\.metadata_fields"):
        config_for(base, report={"source_field": "author"})
