"""The configs under configs/corpora, each on small files of exactly the shape that its corpus has."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import datasets
import pytest

from lmbatch.config import PreprocessConfig, load_config
from lmbatch.corpus import Document, Record, build_cleaner, list_inputs, split_of
from lmbatch.errors import InputMissingError
from lmbatch.store import LocalStore
from support.corpus_files import read_split, rejected, texts

CONFIGS = Path(__file__).parents[3] / "configs" / "corpora"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != "base")

LAW = (
    "为了保护专利权人的合法权益，鼓励发明创造，推动发明创造的应用，\n"
    "提高创新能力，促进科学技术进步和经济社会发展，制定本法。"
)
NOVEL = "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦；及秦灭之后，楚、汉分争，又并入于汉。"


def config(name: str, raw: Path, *sets: str) -> PreprocessConfig:
    return load_config(PreprocessConfig, CONFIGS / f"{name}.yaml", [f"corpus.raw={raw}", *sets])


def read(settings: PreprocessConfig) -> list[Record]:
    """Every record, read whole and again in small pieces, which must not differ."""
    records = read_split(settings.corpus, 2**62)
    assert read_split(settings.corpus, 100) == records
    return records


def documents(records: list[Record]) -> list[Document]:
    return [record for record in records if isinstance(record, Document)]


def after_cleaning(settings: PreprocessConfig, records: list[Record]) -> list[str]:
    clean = build_cleaner(settings.cleaning)
    return texts([clean(document) for document in documents(records)])


def test_every_corpus_of_the_recipes_has_its_config() -> None:
    assert set(NAMES) >= {
        "wudao",
        "gpt2_csv_15g",
        "wikipedia_zh",
        "wikipedia_cn_filtered",
        "plain_txt",
        "kant_txt",
        "demo",
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_called_like_its_file_and_says_how_to_get_the_corpus(name: str, tmp_path: Path) -> None:
    settings = config(name, tmp_path)
    assert settings.corpus.name == name
    with pytest.raises(InputMissingError) as caught:
        list_inputs(LocalStore(tmp_path), settings.corpus)
    assert f"data/raw/{name}" in (caught.value.remedy or "")


@pytest.mark.parametrize("style", [{"separators": (",", ":")}, {"indent": 4}, {}])
@pytest.mark.parametrize("wrapped", [False, True])
def test_wudao(tmp_path: Path, style: dict, wrapped: bool) -> None:
    records = [
        {"id": n, "uniqueKey": f"key{n}", "titleUkey": f"t{n}", "dataType": "法律", "title": "专利法", "content": text}
        for n, text in enumerate([f"专利法 {LAW}电话13812345678", NOVEL])
    ]
    value = {"RECORDS": records} if wrapped else records
    (tmp_path / "part-202101281a.json").write_text(json.dumps(value, ensure_ascii=False, **style), encoding="utf-8")
    settings = config("wudao", tmp_path)
    found = read(settings)
    assert texts(found) == [record["content"] for record in records]
    assert [document.id for document in documents(found)] == ["key0", "key1"]
    assert after_cleaning(settings, found) == [f"{LAW}电话[电话]", NOVEL]


def test_gpt2_csv_15g(tmp_path: Path) -> None:
    for folder in ("a/b", "c"):
        (tmp_path / folder).mkdir(parents=True)
        with (tmp_path / folder / "1.csv").open("w", encoding="utf-8", newline="") as out:
            csv.writer(out).writerows(
                [["", "title", "content"], [0, "一", LAW], [1, "二", ""], [2, "三", f'"{NOVEL}"']]
            )
    (tmp_path / "c" / "notes.md").write_text("no part of the corpus")
    settings = config("gpt2_csv_15g", tmp_path)
    found = read(settings)
    assert texts(found) == [LAW, f'"{NOVEL}"'] * 2
    assert [(record.reason, record.dropped) for record in rejected(found)] == [("empty_text", True)] * 2
    assert after_cleaning(settings, found) == texts(found)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_wikipedia_zh(tmp_path: Path, mark: str) -> None:
    rows = [{"id": str(n), "title": "数学", "text": text} for n, text in enumerate([LAW, NOVEL])]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "wikipedia-zh-cn-20240820.json").write_text(mark + lines, encoding="utf-8")
    settings = config("wikipedia_zh", tmp_path)
    found = read(settings)
    assert after_cleaning(settings, found) == [LAW, NOVEL]
    assert [(document.id, document.metadata) for document in documents(found)] == [
        ("0", {"title": "数学"}),
        ("1", {"title": "数学"}),
    ]
    drawn = [split_of(Document("", "", 0, str(n)), settings.split) for n in range(2000)]
    assert 150 < drawn.count("validation") < 250


def test_plain_txt(tmp_path: Path) -> None:
    long = LAW.replace("\n", "") * 3
    (tmp_path / "a.txt").write_text(f"{long}\r\n\r\n{NOVEL}\r\n", encoding="utf-8", newline="")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.txt").write_text(f"\ufeff{'字' * 127}\n{'字' * 128}", encoding="utf-8")
    settings = config("plain_txt", tmp_path)
    found = read(settings)
    assert texts(found) == [long, NOVEL, "字" * 127, "字" * 128]
    assert after_cleaning(settings, found) == [long, "字" * 128]


def test_kant_txt(tmp_path: Path) -> None:
    lines = ["  The Critique of  Pure Reason", "", "Human reason, in one sphere of its cognition,\tis called upon"]
    (tmp_path / "kant.txt").write_text("\n".join(lines), encoding="utf-8")
    settings = config("kant_txt", tmp_path)
    found = read(settings)
    assert after_cleaning(settings, found) == texts(found) == [lines[0], lines[2]]


@pytest.mark.parametrize("split", [False, True])
def test_wikipedia_cn_filtered(tmp_path: Path, split: bool) -> None:
    rows = datasets.Dataset.from_list(
        [{"completion": text, "source": "wikipedia.zh2307"} for text in [LAW, NOVEL, "三"]]
    )
    (datasets.DatasetDict({"train": rows}) if split else rows).save_to_disk(tmp_path)
    settings = config("wikipedia_cn_filtered", tmp_path)
    found = read(settings)
    assert after_cleaning(settings, found) == [LAW, NOVEL, "三"]
    assert documents(found)[0].metadata == {"source": "wikipedia.zh2307"}
    assert settings.corpus.max_records == 10_000


def test_wikipedia_cn_filtered_as_an_array(tmp_path: Path) -> None:
    rows = [{"completion": text, "source": "wikipedia.zh2307"} for text in [LAW, NOVEL]]
    (tmp_path / "wikipedia-cn-20230720-filtered.json").write_text(
        json.dumps(rows, ensure_ascii=False, indent=4), encoding="utf-8"
    )
    sets = ("corpus.format=json_array", 'corpus.include=["*.json"]')
    assert texts(read(config("wikipedia_cn_filtered", tmp_path, *sets))) == [LAW, NOVEL]
