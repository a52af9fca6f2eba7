"""The first N records of a corpus (corpus.max_records): the same ones whatever the tasks, the rest left unread."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from lmbatch.cli.preprocess import left_unread
from lmbatch.config import PreprocessConfig, TokenizerConfig
from lmbatch.corpus import list_inputs
from lmbatch.preprocess import load_plan, read_receipts, verify_store
from lmbatch.shards import Shard
from lmbatch.store import Manifest, open_store
from lmbatch.tokens import load_tokenizer
from lmbatch.tokens.sample import Sample
from support.drive import contents, preprocess_here
from support.wudao import config_for, text_of, write_files, write_tokenizer

ROWS, FILES = 30, 3
SOURCES = ("json_array", "dataset")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """The same thirty texts as three JSON arrays, and as a `datasets` folder of three files."""
    folder = tmp_path_factory.mktemp("first")
    write_files(folder / "json_array", files=FILES, documents=ROWS // FILES)
    rows = datasets.Dataset.from_list([{"completion": text_of(number)} for number in range(ROWS)])
    rows.save_to_disk(folder / "dataset", num_shards=FILES)
    write_tokenizer(folder / "tok")
    return folder


def config_of(base: Path, source: str, store: Path, most: int | None, size: int = 2**20, **changes) -> PreprocessConfig:
    corpus = {"format": source, "raw": str(base / source), "max_records": most}
    if source == "dataset":
        corpus |= {"include": ["**"], "text_fields": ["completion"], "id_field": None}
    return config_for(base, corpus=corpus, store=str(store), tasks={"bytes": size}, **changes)


def texts_of(base: Path, store: Path, manifest: Manifest) -> list[str]:
    tokenizer = load_tokenizer(base / "tok")
    found = []
    for entry in manifest.shards:
        shard = Shard.open(store / entry.bin.key, store / entry.idx.key)
        rows = [shard.sequence(number).tolist() for number in range(shard.index.sequences)]
        assert all(row[-1] == tokenizer.eod_id and tokenizer.eod_id not in row[:-1] for row in rows)
        found += [tokenizer.backend.decode(row[:-1]) for row in rows]
    return found


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("most", "unread"),
    [(2, {"all": 2, "rest": 1}), (10, {"all": 2}), (13, {"all": 1, "rest": 1}), (30, {}), (99, {})],
)
def test_the_first_records_over_all_files(base, tmp_path, source, most, unread):
    manifest = preprocess_here(config_of(base, source, tmp_path, most))
    assert sorted(texts_of(base, tmp_path, manifest)) == sorted(text_of(number) for number in range(min(most, ROWS)))
    assert manifest.ledger.records == min(most, ROWS)
    assert manifest.ledger.unread == unread
    assert not verify_store(open_store(str(tmp_path))).problems


def test_the_size_of_a_task_changes_nothing(base, tmp_path):
    stores = [tmp_path / str(size) for size in (700, 2**30)]
    manifests = [
        preprocess_here(config_of(base, "json_array", store, 13, size))
        for store, size in zip(stores, (700, 2**30), strict=True)
    ]
    shards = [
        {key: data for key, data in contents(open_store(str(store))).items() if key.startswith("shards/")}
        for store in stores
    ]
    assert shards[0] == shards[1]
    assert manifests[0].ledger == manifests[1].ledger


def test_what_is_behind_the_limit_is_not_opened(base, tmp_path):
    """A damaged file behind the limit does no harm, and the receipt tells what was read of each."""
    raw = tmp_path / "raw" / "json_array"
    write_files(raw, files=FILES, documents=10)
    last = sorted(raw.iterdir())[-1]
    last.write_text('[{"content": "' + "x" * 400, encoding="utf-8")
    write_tokenizer(tmp_path / "raw" / "tok")
    preprocess_here(config_of(tmp_path / "raw", "json_array", tmp_path / "store", 13))
    store = open_store(str(tmp_path / "store"))
    (receipt,) = read_receipts(store, load_plan(store).tasks).values()
    assert [(piece.records, piece.unread) for piece in receipt.pieces] == [(10, None), (3, "rest"), (0, "all")]
    assert receipt.pieces[1].end_position < receipt.pieces[1].end
    assert (receipt.pieces[2].first_position, receipt.pieces[2].end_position) == (0, 0)


def test_the_place_of_the_last_record_is_kept(base, tmp_path):
    """Looking whether there is more does not move it."""
    preprocess_here(config_of(base, "dataset", tmp_path, 13))
    store = open_store(str(tmp_path))
    (receipt,) = read_receipts(store, load_plan(store).tasks).values()
    assert [(piece.first_position, piece.end_position) for piece in receipt.pieces] == [(0, 10), (0, 3), (0, 0)]


def test_a_tokenizer_is_trained_on_the_same_records(base, tmp_path):
    corpus = config_of(base, "dataset", tmp_path, 13)
    files = list_inputs(open_store(corpus.corpus.raw), corpus.corpus)
    settings = TokenizerConfig(vocab_size=300, corpus="x", out=str(tmp_path / "out"))
    assert list(Sample(corpus, settings, files)) == [text_of(number) for number in range(13)]


def test_the_two_limits_exclude_each_other(base, tmp_path):
    with pytest.raises(ValueError, match="give one of the two"):
        config_for(base, corpus={"max_records": 3, "first_records": 2})


def test_in_words():
    assert left_unread({"all": 2, "rest": 1}) == "2 files and the rest of 1, behind corpus.max_records"
    assert left_unread({"rest": 1}) == "the rest of 1, behind corpus.max_records"
