"""Corpora in each way of cutting: what the shards hold, what was thrown away, and what others make of them."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
from datasets import Dataset
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from lmbatch.config import ChunkingConfig, PreprocessConfig
from lmbatch.errors import CorpusError, TaskError
from lmbatch.loader import Span, documents_of
from lmbatch.preprocess import build_manifest, load_plan, read_receipts, verify_store
from lmbatch.preprocess.chunking import truncated
from lmbatch.shards import Shard, ShardWriter, verify_shard
from lmbatch.store import Manifest, ShardEntry, Store, TokenLedger, open_store
from lmbatch.tokens import load_tokenizer
from support.drive import contents, preprocess_here
from support.wudao import EOD, config_for, text_of, write_files, write_tokenizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from megatron.core.datasets.indexed_dataset import IndexedDataset

MODES = ("lines", "split_lines", "truncate", "drop_short")
LENGTH = 24
TEXTS = [text_of(number) for number in range(80)]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("chunking")
    write_files(folder / "raw", files=2)
    write_tokenizer(folder / "tok")
    for mode in ("packed", *MODES):
        preprocess_here(config_of(folder, mode))
    return folder


def config_of(base: Path, mode: str, store: str | None = None, **changes) -> PreprocessConfig:
    chunking = {"mode": mode, "length": None if mode == "packed" else LENGTH}
    return config_for(base, chunking=chunking, store=store or str(base / mode), **changes)


def opened(base: Path, mode: str) -> tuple[Store, Manifest]:
    store = open_store(str(base / mode))
    return store, build_manifest(load_plan(store), read_receipts(store, load_plan(store).tasks))


def shards(base: Path, mode: str) -> list[tuple[ShardEntry, Shard]]:
    root = base / mode
    return [(entry, Shard.open(root / entry.bin.key, root / entry.idx.key)) for entry in opened(base, mode)[1].shards]


def sequences(base: Path, mode: str) -> list[tuple[int, ...]]:
    return sorted(
        tuple(shard.sequence(n).tolist()) for _, shard in shards(base, mode) for n in range(shard.index.sequences)
    )


def plain_ids(base: Path, text: str) -> list[int]:
    return load_tokenizer(base / "tok").backend.encode(text).ids


def expected(base: Path, mode: str) -> list[tuple[int, ...]]:
    """The rules of the modes, written plainly, with Hugging Face's ids."""
    eod = load_tokenizer(base / "tok").eod_id
    parts = [line for text in TEXTS for line in text.split("\n")] if "lines" in mode else TEXTS
    ids = [plain_ids(base, part) for part in parts]
    if mode == "drop_short":
        return sorted(tuple(run[at : at + LENGTH]) for run in ids for at in range(0, len(run) - LENGTH + 1, LENGTH))
    if mode == "split_lines":
        step = LENGTH - 1
        return sorted((*run[at : at + step], eod) for run in ids for at in range(0, len(run), step))
    return sorted((*run[: LENGTH - 1], eod) for run in ids)


@pytest.mark.parametrize("mode", MODES)
def test_the_shards_hold_the_examples_of_the_mode(base, mode):
    assert sequences(base, mode) == expected(base, mode)
    manifest = opened(base, mode)[1]
    assert manifest.chunking == ChunkingConfig(mode=mode, length=LENGTH)
    assert manifest.sequences("train") + manifest.sequences("validation") == len(expected(base, mode))


@pytest.mark.parametrize("mode", MODES)
def test_every_token_is_written_or_thrown_away_by_name(base, mode):
    manifest = opened(base, mode)[1]
    tokens = manifest.ledger.tokens
    assert tokens is not None
    if "lines" not in mode:  # a line end is a token of its own, which no line has
        assert tokens.encoded == sum(len(plain_ids(base, text)) for text in TEXTS)
    written = sum(shard.tokens for shard in manifest.shards)
    assert tokens.encoded + tokens.eod - tokens.lost == written == sum(map(len, expected(base, mode)))
    reasons = {"split_lines": [], "drop_short": ["too_short"]}.get(mode, ["truncated"])
    assert list(tokens.thrown_away) == reasons
    assert 0 < tokens.share_lost < 1 if reasons else tokens.share_lost == 0


def test_documents_and_examples_are_counted_apart(base):
    whole = opened(base, "packed")[1]
    assert whole.ledger.documents_out == len(TEXTS) == whole.sequences("train") + whole.sequences("validation")
    assert whole.chunking is None
    assert whole.ledger.tokens is None
    for mode in MODES:
        ledger = opened(base, mode)[1].ledger
        assert ledger.documents_out + ledger.records_dropped == len(TEXTS)
        short = sum(len(plain_ids(base, text)) < LENGTH for text in TEXTS)
        assert ledger.dropped == ({"too_short": short} if mode == "drop_short" and short else {})


def test_packed_corpora_keep_their_digest(base):
    plain = config_for(base, store=str(base / "absent"))
    assert preprocess_here(plain).digest == opened(base, "packed")[1].digest
    assert "chunking" not in json.dumps(json.loads(opened(base, "packed")[1].model_dump_json(exclude_none=True)))


@pytest.mark.parametrize("mode", MODES)
def test_doing_the_tasks_in_another_order_gives_the_same_bytes(base, mode, tmp_path):
    preprocess_here(config_of(base, mode, store=str(tmp_path)), shuffle=3)
    assert contents(open_store(str(tmp_path))) == contents(open_store(str(base / mode)))


def test_the_text_bytes_of_a_cut_document_are_its_share(base):
    for mode, kept in (("truncate", lambda n: min(n, LENGTH - 1)), ("drop_short", lambda n: n // LENGTH * LENGTH)):
        counts = [(len(text.encode()), len(plain_ids(base, text))) for text in TEXTS]
        expected_bytes = sum(size * kept(tokens) // tokens for size, tokens in counts)
        assert sum(shard.text_bytes for shard in opened(base, mode)[1].shards) == expected_bytes


@pytest.mark.parametrize("mode", MODES)
def test_documents_are_found_behind_examples(base, mode):
    store, manifest = opened(base, mode)
    eod = manifest.tokenizer.eod_id
    entry, shard = next(pair for pair in shards(base, mode) if pair[0].split == "train")
    for number in range(len(shard)):
        first = int(shard.index.firsts[number])
        at = int(shard.index.pointers[first]) // 2
        origin = documents_of(store, manifest, "train", [Span(0, at, int(shard.index.lengths[first]))])
        assert [found.document for found in origin] == [number]
        data = (base / "raw" / origin[0].path).read_bytes()[origin[0].position :]
        text = json.JSONDecoder().raw_decode(data.decode())[0]["content"]
        ids = plain_ids(base, text.splitlines()[0] if "lines" in mode else text)
        own = ids[:LENGTH] if mode == "drop_short" else [*ids[: LENGTH - 1], eod]
        assert shard.sequence(first).tolist() == own
    assert entry.documents == len(shard)


# ── what others make of it ───────────────────────────────────────────────────────────────────────────────────────────
def test_drop_short_gives_the_ids_of_the_recipe_with_datasets_and_transformers(base, tmp_path):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(base / "tok" / "tokenizer.json"), eos_token=EOD)

    def tokenize(batch):
        found = tokenizer(
            batch["content"], truncation=True, max_length=LENGTH, return_overflowing_tokens=True, return_length=True
        )
        pairs = zip(found["length"], found["input_ids"], strict=True)
        return {"input_ids": [ids for length, ids in pairs if length == LENGTH]}

    data = Dataset.from_list([{"content": text} for text in TEXTS])
    recipe = data.map(tokenize, batched=True, batch_size=7, remove_columns=["content"])
    assert sequences(base, "drop_short") == sorted(tuple(row) for row in recipe["input_ids"])


@pytest.mark.parametrize("mode", ["packed", *MODES])
def test_megatron_reads_the_shards_of_every_mode(base, mode):
    for entry, shard in shards(base, mode):
        dataset = IndexedDataset(str(base / mode / entry.bin.key.removesuffix(".bin")))
        assert len(dataset) == shard.index.sequences
        assert [dataset[n].tolist() for n in range(len(dataset))] == [
            shard.sequence(n).tolist() for n in range(len(dataset))
        ]
        assert dataset.document_indices.tolist() == shard.index.firsts.tolist()


# ── guards ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("mode", ["packed", *MODES])
def test_a_store_of_each_mode_verifies(base, mode):
    assert verify_store(open_store(str(base / mode))).problems == {}


def problems_as(base: Path, mode: str, chunking: ChunkingConfig | None, ids: list[int], lengths: list[int]) -> str:
    """What verification says of a shard with these sequences when the corpus was cut in that way."""
    folder = base / f"shard-{mode}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    writer = ShardWriter(folder, "s", "uint16", examples=True)
    writer.append(ids, piece=0, position=0, id=None, text_bytes=1, lengths=lengths)
    entry = writer.close().entry("train", "s")
    found = verify_shard(open_store(str(folder)), entry, dtype="uint16", largest_id=99, eod_id=0, chunking=chunking)
    return "; ".join(found)


def test_eod_is_asked_for_where_the_mode_has_it(tmp_path):
    truncate, drop = (ChunkingConfig(mode=mode, length=4) for mode in ("truncate", "drop_short"))
    assert problems_as(tmp_path, "truncate", truncate, [5, 6, 0, 7, 0], [3, 2]) == ""
    assert "sequence 1 ends with token 8" in problems_as(tmp_path, "truncate", truncate, [5, 6, 0, 7, 8], [3, 2])
    assert problems_as(tmp_path, "drop_short", drop, [5, 6, 7, 8, 9, 10, 11, 12], [4, 4]) == ""


def test_sequences_of_a_wrong_length_are_found(tmp_path):
    truncate, drop = (ChunkingConfig(mode=mode, length=4) for mode in ("truncate", "drop_short"))
    long = problems_as(tmp_path, "truncate", truncate, [5, 6, 7, 8, 0, 0], [5, 1])
    assert "sequence 0 has 5 tokens, truncate gives 2 to 4 (2 such sequences)" in long
    assert "sequence 1 has 3 tokens, drop_short gives 4 to 4" in problems_as(tmp_path, "d", drop, [5] * 7, [4, 3])
    assert "2 sequences, should be 1" in problems_as(tmp_path, "packed", None, [5, 0, 6, 0], [2, 2])


@pytest.mark.parametrize(("mode", "change"), [("truncate", 1), ("drop_short", -1)])
def test_a_receipt_whose_tokens_do_not_add_up_makes_no_manifest(base, mode, change):
    store = open_store(str(base / mode))
    plan = load_plan(store)
    receipts = read_receipts(store, plan.tasks)
    name, receipt = next(iter(receipts.items()))
    tokens = receipt.ledger.tokens
    assert tokens is not None
    other = tokens.model_copy(update={"encoded": tokens.encoded + change})
    for wrong, what in ((other, "were written, not"), (None, "does not tell")):
        ledger = receipt.ledger.model_copy(update={"tokens": wrong})
        damaged = receipts | {name: receipt.model_copy(update={"ledger": ledger})}
        with pytest.raises(CorpusError, match=what):
            build_manifest(plan, damaged)


def test_a_task_that_loses_a_token_unnamed_fails(base, tmp_path, monkeypatch):
    def careless(ids, length, eod_id):
        cut = truncated(ids, length, eod_id)
        cut.kept[0] += 1
        return cut

    monkeypatch.setattr("lmbatch.preprocess.chunking.truncated", careless)
    with pytest.raises(TaskError, match=r"tokens were encoded.*thrown away, but \d+ were written"):
        preprocess_here(config_of(base, "truncate", store=str(tmp_path / "s")))


def test_a_corpus_of_which_nothing_is_left_says_why(base, tmp_path):
    config = config_for(base, chunking={"mode": "drop_short", "length": 9999}, store=str(tmp_path / "s"))
    with pytest.raises(CorpusError, match="80 dropped"):
        preprocess_here(config)


@pytest.mark.parametrize("mode", ["lines", "truncate"])
def test_a_document_without_tokens_is_dropped_by_name(base, tmp_path, mode):
    (tmp_path / "raw").mkdir()
    records = [{"uniqueKey": str(n), "content": text} for n, text in enumerate(["\u200d", "甲乙丙", "\u200d\u200d"])]
    (tmp_path / "raw" / "a.json").write_text(json.dumps(records), encoding="utf-8")
    shutil.copytree(base / "tok", tmp_path / "tok")
    backend = Tokenizer.from_file(str(tmp_path / "tok" / "tokenizer.json"))
    backend.normalizer = normalizers.Replace("\u200d", "")
    backend.save(str(tmp_path / "tok" / "tokenizer.json"))
    manifest = preprocess_here(config_of(tmp_path, mode, split={"validation_fraction": 0.0}))
    assert manifest.ledger.documents == {"train": 1}
    assert manifest.ledger.dropped == {"no_tokens": 2}
    assert manifest.ledger.tokens == TokenLedger(encoded=manifest.tokens("train") - 1, eod=1)
