"""The data card says what the manifest says, is the same everywhere, and is nobody's condition."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lmbatch.cli import cli
from lmbatch.config import PreprocessConfig
from lmbatch.preprocess import CARD_KEY, load_plan, merge, repair_store, verify_store
from lmbatch.preprocess.card import size_category
from lmbatch.store import Store, open_store
from support.drive import preprocess_here
from support.wudao import config_for, write_files, write_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    write_files(folder / "raw", files=2, documents=20)
    write_tokenizer(folder / "tok")
    odd: list[Any] = [
        {"uniqueKey": "short", "content": "短"},
        {"content": 7},
        {"uniqueKey": "w", "content": "一 二  三四五六"},
    ]
    (folder / "raw" / "part|`<b>.json").write_text(json.dumps(odd, ensure_ascii=False), encoding="utf-8")
    return folder


def config_of(base: Path, name: str, **corpus: Any) -> PreprocessConfig:
    return config_for(
        base, store=str(base / name), corpus=corpus, cleaning={"min_characters": 5, "whitespace": True},
        dedup={"exact": True, "near": {}},
    )  # fmt: skip


def card_of(store: Store) -> str:
    return store.read(CARD_KEY).decode()


def made(base: Path, name: str, **corpus: Any) -> Store:
    config = config_of(base, name, **corpus)
    preprocess_here(config)
    return open_store(config.store)


@pytest.fixture(scope="module")
def store(base: Path) -> Store:
    return made(base, "store", language=("zh", "en"), license="cc-by-4.0", description="一个小语料库。")


def test_the_front_matter_is_that_of_a_dataset(store: Store) -> None:
    front = yaml.safe_load(card_of(store).split("---\n")[1])
    assert front["language"] == ["zh", "en"]
    assert front["license"] == "cc-by-4.0"
    assert front["size_categories"] == ["n<1K"]
    assert front["pretty_name"] == "small"


def test_the_card_says_what_the_manifest_says(store: Store) -> None:
    manifest = merge(store, load_plan(store))
    card = card_of(store)
    for words in (
        manifest.digest, "一个小语料库。", "License: cc-by-4.0.", f"| train | {manifest.ledger.documents['train']:,} |",
        f"{manifest.tokens('validation'):,}", f"43 records were read = {manifest.ledger.documents_out} documents",
        "dropped: `too_short` | 1", "quarantined: `text_not_a_string` | 1", "`whitespace` 1", "`min_characters: 5`",
        "near-duplicates", "`part\\|'<b>.json`", manifest.tokenizer.fingerprint, "lmbatch verify", "tokenizers",
        "| Unicode |",
    ):  # fmt: skip
        assert words in card, words
    assert str(store.uri).removeprefix("file://") not in card


def test_a_card_without_a_license_says_so(base: Path) -> None:
    card = card_of(made(base, "plain"))
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "unknown"
    assert "No license is stated" in card


def test_what_somebody_wrote_into_it_stays_until_it_is_asked_for_anew(base: Path) -> None:
    store = made(base, "edited")
    first = card_of(store)
    store.put(CARD_KEY, (first + "\n我们的说明。\n").encode())
    merge(store, load_plan(store))
    assert "我们的说明。" in card_of(store)
    cli.main(["report", str(base / "edited"), "--card"], standalone_mode=False)
    assert card_of(store) == first


def test_the_card_of_another_manifest_is_replaced(base: Path) -> None:
    store = made(base, "stale")
    first = card_of(store)
    store.put(CARD_KEY, b"Digest sha256:0000")
    merge(store, load_plan(store))
    assert card_of(store) == first


def test_a_missing_card_breaks_nothing(base: Path) -> None:
    store = made(base, "bare")
    store.delete(CARD_KEY)
    report = verify_store(store)
    assert report.right
    assert not repair_store(store, load_plan(store), report).manifest
    assert not store.exists(CARD_KEY)
    digest = merge(store, load_plan(store)).digest
    assert digest in card_of(store)
    assert report.digest == digest


@pytest.mark.parametrize(
    ("documents", "word"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (60_000_000, "10M<n<100M"), (10**13, "n>1T")],
)
def test_size_categories_are_the_hubs(documents: int, word: str) -> None:
    assert size_category(documents) == word
