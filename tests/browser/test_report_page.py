"""The report's page in a real browser: Chinese is text, a corpus's script is text, and nothing is fetched."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lmbatch.report import corpus_page, corpus_report
from lmbatch.store import open_store
from support.browser import Visit, screenshot, visit
from support.drive import preprocess_here
from support.wudao import config_for, write_files, write_tokenizer

EVIL = "<script>document.title='owned';fetch('http://127.0.0.1:9/x')</script><img src=http://127.0.0.1:9/y>从此以后，天下太平。"


class Page(HTMLParser):
    """Texts and tags of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.title = self._tag = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._tag = tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._tag == "title" and not self.title:
            self.title = data


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("page")
    write_files(base / "raw", files=1, documents=10)
    write_tokenizer(base / "tok")
    odd = [{"uniqueKey": f"{EVIL}{n}", "dataType": EVIL, "content": EVIL * (n + 1)} for n in range(3)]
    odd += [{"uniqueKey": "x", "content": 1, EVIL: EVIL}, {"uniqueKey": "y", "content": "&lt;script&gt;短"}]
    (base / "raw" / "part-<b>x&amp;.json").write_text(json.dumps(odd, ensure_ascii=False), encoding="utf-8")
    config = config_for(
        base, corpus={"metadata_fields": ["dataType"]}, report={"source_field": "dataType"},
        cleaning={"min_characters": 20},
    )  # fmt: skip
    preprocess_here(config)
    target = base / "report.html"
    target.write_text(corpus_page(corpus_report(open_store(config.store))), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def seen(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    return visit(page, tmp_path_factory.mktemp("visit"))


def test_texts_of_the_corpus_stay_texts(seen: Visit) -> None:
    found = Page(seen.dom)
    assert "script" not in found.tags
    assert "img" not in found.tags
    assert "b" not in found.tags
    assert found.title == "Corpus small · lmbatch"
    shown = "".join(found.texts)
    assert EVIL in shown
    assert "&lt;script&gt;短" in shown
    assert "part-<b>x&amp;.json" in shown
    assert "从此以后，天下太平。" in shown


def test_the_page_asks_for_nothing_and_complains_of_nothing(seen: Visit, page: Path) -> None:
    assert [url for url in seen.requests if not url.startswith("data:")] == []
    assert seen.console == ()


def test_a_page_that_fetches_and_complains_is_noticed(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://127.0.0.1:9/seen.png'><script>console.error('so')</script>", encoding="utf-8")
    found = visit(bad, tmp_path)
    assert found.requests == ("http://127.0.0.1:9/seen.png",)
    assert any("so" in line for line in found.console)


@pytest.mark.parametrize("width", [390, 1100])
def test_the_page_can_be_drawn(page: Path, tmp_path: Path, width: int) -> None:
    picture = screenshot(page, tmp_path, width=width, height=1600)
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 40_000  # an empty page of that size is a few kilobytes
