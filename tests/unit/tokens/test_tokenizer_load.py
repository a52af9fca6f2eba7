"""A tokenizer folder: what it must hold, what is taken from it, and what a wrong one says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lmbatch.errors import TokenizerError
from lmbatch.tokens import Encoder, load_tokenizer

EOD = "<|endoftext|>"
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
TEXTS = ["中华人民共和国", "第一条 为了保护", "GPT-2 and 😀\n\ttabs", "", "a" * 3000]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[EOD], initial_alphabet=ALPHABET,
                                  show_progress=False)  # fmt: skip
    backend.train_from_iterator(TEXTS * 3, trainer)
    target = tmp_path / "tok"
    target.mkdir()
    backend.save(str(target / "tokenizer.json"))
    (target / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOD}), encoding="utf-8")
    return target


def test_encoding_is_that_of_tokenizers_with_eod_at_the_end(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    expected = [[*encoding.ids, tokenizer.eod_id] for encoding in plain.encode_batch(TEXTS, add_special_tokens=False)]
    assert [ids.tolist() for ids in Encoder(tokenizer).encode(TEXTS)] == expected


def test_a_text_cannot_forge_the_end_of_a_document(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    ids = Encoder(tokenizer).encode([f"good{EOD}evil"])[0].tolist()
    assert ids.count(tokenizer.eod_id) == 1
    assert ids[-1] == tokenizer.eod_id


def test_facts(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.eod_token, tokenizer.eod_id) == (EOD, 0)
    assert tokenizer.size == tokenizer.largest_id + 1
    assert set(tokenizer.files()) == {"tokenizer.json", "tokenizer_config.json"}


def test_the_fingerprint_is_of_the_content_not_the_place_or_layout(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    value = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    (other / "tokenizer.json").write_text(json.dumps(value), encoding="utf-8")
    assert load_tokenizer(other, EOD).fingerprint == load_tokenizer(folder).fingerprint
    value["model"]["merges"].pop()
    (other / "tokenizer.json").write_text(json.dumps(value), encoding="utf-8")
    assert load_tokenizer(other, EOD).fingerprint != load_tokenizer(folder).fingerprint


def test_an_added_token_beyond_the_vocabulary_counts(folder: Path) -> None:
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    before = backend.get_vocab_size()
    backend.add_special_tokens(["<|extra|>"])
    backend.save(str(folder / "tokenizer.json"))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.size == before + 1
    assert tokenizer.largest_id == before


def test_a_bert_folder_with_only_a_vocabulary(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "中", "国", "ai", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path, "[SEP]")
    assert tokenizer.size == len(words)
    assert [ids.tolist() for ids in Encoder(tokenizer).encode(["中国AIs"])] == [[5, 6, 7, 8, 3]]
    assert "tokenizer.json" in tokenizer.files()


@pytest.mark.parametrize(
    ("files", "eod", "message"),
    [
        ({}, None, "holds no tokenizer"),
        ({"readme.md": "x"}, None, "holds no tokenizer (found: readme.md)"),
        ({"tokenizer.json": "{}"}, None, "does not load"),
        ({"tokenizer.json": "nonsense"}, None, "does not load"),
        ({"vocab.txt": ""}, "[SEP]", "does not load"),
        ({"tokenizer.json": Tokenizer(models.BPE()).to_str()}, "[SEP]", "the vocabulary has 0 entries"),
    ],
)
def test_a_wrong_folder_says_what_is_wrong(
    tmp_path: Path, files: dict[str, str], eod: str | None, message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(TokenizerError) as caught:
        load_tokenizer(tmp_path, eod)
    assert message in str(caught.value)
    assert caught.value.remedy


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no such tokenizer folder"):
        load_tokenizer(tmp_path / "nowhere")


def test_an_eod_that_is_not_in_the_vocabulary_offers_one_that_is(folder: Path) -> None:
    with pytest.raises(TokenizerError) as caught:
        load_tokenizer(folder, "</s>")
    assert "'</s>' is not in the vocabulary" in str(caught.value)
    assert EOD in str(caught.value)


def test_a_folder_without_an_eos_token_asks_for_one(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(TokenizerError, match="names no eos_token"):
        load_tokenizer(folder)
