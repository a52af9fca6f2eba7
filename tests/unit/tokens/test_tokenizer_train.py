"""Tokenizers of every kind: deterministic, loadable by lmbatch and by plain transformers, with the right parts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer

from lmbatch.config import PreprocessConfig, TokenizerConfig, load_config
from lmbatch.errors import ConfigError, TokenizerError, UsageError
from lmbatch.tokens import Encoder, load_tokenizer
from lmbatch.tokens.segmentation import Segmentation, build_segmenter, read_segmentation
from lmbatch.tokens.train import train_tokenizer
from support.wudao import config_for, write_files

ROOT = Path(__file__).resolve().parents[3]
BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SETTINGS: dict[str, dict[str, Any]] = {
    "byte_bpe": {"vocab_size": 400, "special_tokens": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"), "eod": "</s>"},
    "wordpiece": {"vocab_size": 300, "special_tokens": (*BERT, "<|endoftext|>")},
    "word": {"vocab_size": 300, "special_tokens": ("[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]"), "eod": "[SEP]"},
}
TEXT = "国务院专利行政部门负责管理全国的专利工作，He said “hello”, 2024年。"


@pytest.fixture
def corpus(tmp_path: Path) -> PreprocessConfig:
    write_files(tmp_path / "raw")
    return config_for(tmp_path)


def config_of(kind: str, out: Path, **changes: Any) -> TokenizerConfig:
    return TokenizerConfig.model_validate(
        {"type": kind, "corpus": "corpus.yaml", "out": str(out), **SETTINGS.get(kind, {}), **changes}
    )


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_kind_is_loaded_by_lmbatch_and_by_transformers_alike(
    tmp_path: Path, corpus: PreprocessConfig, kind: str
) -> None:
    from transformers import AutoTokenizer

    config = config_of(kind, tmp_path / "tok")
    trained = train_tokenizer(config, corpus)
    tokenizer = load_tokenizer(trained.folder)
    assert [tokenizer.backend.token_to_id(token) for token in config.special_tokens] == [
        *range(len(config.special_tokens))
    ]
    assert tokenizer.eod_token == config.eod
    assert tokenizer.size == trained.size <= config.vocab_size

    segment = tokenizer.segmenter() or (lambda text: text)
    theirs = AutoTokenizer.from_pretrained(trained.folder)
    assert len(theirs) == trained.size
    ids = Encoder(tokenizer).encode([TEXT])[0].tolist()
    assert ids == [*theirs(segment(TEXT), add_special_tokens=False)["input_ids"], tokenizer.eod_id]
    unknown = tokenizer.backend.token_to_id("[UNK]")
    assert sum(one == unknown for one in ids) <= 4  # 2024 and 负责, perhaps; not everything


@pytest.mark.parametrize("kind", SETTINGS)
def test_training_twice_in_other_processes_gives_the_same_bytes(
    tmp_path: Path, corpus: PreprocessConfig, kind: str
) -> None:
    script = (
        "import sys; from lmbatch.config import *; from lmbatch.tokens.train import train_tokenizer\n"
        "config, corpus = sys.argv[1:]\n"
        "train_tokenizer(TokenizerConfig.model_validate_json(config), PreprocessConfig.model_validate_json(corpus))"
    )
    found = set()
    for name in ("one", "two", "three"):
        config = config_of(kind, tmp_path / name)
        arguments = [config.model_dump_json(), corpus.model_dump_json()]
        subprocess.run([sys.executable, "-c", script, *arguments], check=True, timeout=60)
        found.add(tuple(path.read_bytes() for path in sorted((tmp_path / name).iterdir())))
    assert len(found) == 1


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_same_one_is_not_trained_again_and_another_one_is(
    tmp_path: Path, corpus: PreprocessConfig, kind: str
) -> None:
    config = config_of(kind, tmp_path / "tok")
    assert not train_tokenizer(config, corpus).reused
    assert train_tokenizer(config, corpus).reused
    assert not train_tokenizer(config_of(kind, tmp_path / "tok", min_frequency=3), corpus).reused


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, corpus: PreprocessConfig) -> None:
    (tmp_path / "tok").mkdir()
    (tmp_path / "tok" / "notes.txt").write_text("mine", encoding="utf-8")
    for kind in SETTINGS:
        with pytest.raises(UsageError, match="was not written by"):
            train_tokenizer(config_of(kind, tmp_path / "tok"), corpus)


# ── WordPiece ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_wordpiece_takes_ideographs_one_by_one_and_marks_what_continues(
    tmp_path: Path, corpus: PreprocessConfig
) -> None:
    folder = train_tokenizer(config_of("wordpiece", tmp_path / "tok"), corpus).folder
    vocabulary = load_tokenizer(folder).backend.get_vocab()
    own = {entry.removeprefix("##") for entry in vocabulary if entry not in SETTINGS["wordpiece"]["special_tokens"]}
    ideographs = [entry for entry in own if any("\u4e00" <= one <= "\u9fff" for one in entry)]
    assert ideographs
    assert {len(entry) for entry in ideographs} == {1}
    assert not any(entry.startswith("##") and "\u4e00" <= entry[2] <= "\u9fff" for entry in vocabulary)
    assert "hello" in vocabulary
    assert "Hello" not in vocabulary
    added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    assert [token["content"] for token in added] == [*SETTINGS["wordpiece"]["special_tokens"]]


def test_a_small_vocabulary_keeps_the_frequent_characters(tmp_path: Path, corpus: PreprocessConfig) -> None:
    config = TokenizerConfig(type="wordpiece", vocab_size=257, special_tokens=BERT, eod="[SEP]", min_frequency=1,
                             corpus="c", out=str(tmp_path / "tok"))  # fmt: skip
    many = "".join(map(chr, range(0x4E00, 0x4E00 + 900)))
    path = next((tmp_path / "raw").glob("*.json"))
    path.write_text(json.dumps([{"uniqueKey": "1", "content": many + "的" * 50}]), encoding="utf-8")
    trained = train_tokenizer(config, corpus)
    assert trained.size == 257
    backend = load_tokenizer(trained.folder).backend
    assert backend.token_to_id("的") is not None
    assert backend.encode("㐀的", add_special_tokens=False).tokens == ["[UNK]", "的"]


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_words_are_those_of_the_segmenter_the_most_frequent_first(tmp_path: Path, corpus: PreprocessConfig) -> None:
    folder = train_tokenizer(config_of("word", tmp_path / "tok"), corpus).folder
    tokenizer = load_tokenizer(folder)
    assert tokenizer.segmentation == read_segmentation(folder)
    assert tokenizer.backend.token_to_id("专利") is not None
    assert tokenizer.backend.token_to_id("，") < 10  # right behind the five special tokens
    assert set(tokenizer.files()) == {"tokenizer.json", "tokenizer_config.json", "segmentation.json"}


def test_a_text_cannot_spell_a_special_word(tmp_path: Path, corpus: PreprocessConfig) -> None:
    tokenizer = load_tokenizer(train_tokenizer(config_of("word", tmp_path / "tok"), corpus).folder)
    for text in ("专利[SEP]制度", "[SEP]", " [SEP] ", "[CLS] [SEP]"):
        assert Encoder(tokenizer).encode([text])[0].tolist().count(tokenizer.eod_id) == 1
    segment = build_segmenter(Segmentation("jieba", "0.42.1"), ["专利权"])
    assert "专 利 权" in segment("专利权")


def test_segmentation_is_part_of_the_fingerprint(tmp_path: Path, corpus: PreprocessConfig) -> None:
    folder = train_tokenizer(config_of("word", tmp_path / "tok"), corpus).folder
    before = load_tokenizer(folder).fingerprint
    (folder / "segmentation.json").write_text(Segmentation("jieba", "0.39").to_json(), encoding="utf-8")
    assert load_tokenizer(folder).fingerprint != before
    with pytest.raises(TokenizerError, match="segmented by jieba 0.39, here is 0.42"):
        Encoder(load_tokenizer(folder))
    (folder / "segmentation.json").write_text("[]", encoding="utf-8")
    with pytest.raises(TokenizerError, match="not a segmentation"):
        load_tokenizer(folder)


def test_without_the_segmenter_the_folder_loads_and_encoding_says_what_is_missing(
    tmp_path: Path, corpus: PreprocessConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import metadata

    folder = train_tokenizer(config_of("word", tmp_path / "tok"), corpus).folder

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    tokenizer = load_tokenizer(folder)
    with pytest.raises(TokenizerError, match="jieba, which is not installed") as caught:
        Encoder(tokenizer)
    assert "lmbatch[zh]" in str(caught.value)
    with pytest.raises(TokenizerError, match="not installed"):
        train_tokenizer(config_of("word", tmp_path / "other"), corpus)


# ── extending one, and what stands around a text ─────────────────────────────────────────────────────────────────────
def bert_folder(folder: Path, entries: int) -> Path:
    folder.mkdir()
    words = [*BERT, "中", "国", *(f"[unused{number}]" for number in range(entries - 7))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return folder


def test_a_folder_with_a_token_added_has_one_entry_more_and_every_part(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = bert_folder(tmp_path / "bert", 21128)
    config = config_of("extend", tmp_path / "tok", corpus=None, base=str(base), vocab_size=21129)
    trained = train_tokenizer(config)
    tokenizer = load_tokenizer(trained.folder)
    assert (trained.size, tokenizer.size, tokenizer.eod_id) == (21129, 21129, 21128)
    theirs = AutoTokenizer.from_pretrained(trained.folder)
    assert len(theirs) == 21129
    parts = (theirs.bos_token, theirs.eos_token, theirs.unk_token, theirs.pad_token)
    assert parts == ("<|endoftext|>",) * 4
    # The part of unk is a name alone: a character without an entry is no end of a document.
    assert theirs("中𠀀国", add_special_tokens=False)["input_ids"] == [5, 1, 6]
    assert Encoder(tokenizer).encode(["中𠀀国"])[0].tolist() == [5, 1, 6, 21128]
    assert train_tokenizer(config).reused


def test_extending_what_is_not_meant_is_refused(tmp_path: Path) -> None:
    base = bert_folder(tmp_path / "bert", 300)
    config = config_of("extend", tmp_path / "tok", corpus=None, base=str(base), vocab_size=21129)
    with pytest.raises(TokenizerError, match="it has 301 entries, the config says 21129"):
        train_tokenizer(config)
    assert not (tmp_path / "tok").exists()


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_a_post_processor_serves_transformers_and_leaves_shards_alone(
    tmp_path: Path, corpus: PreprocessConfig, kind: str
) -> None:
    folder = train_tokenizer(config_of("byte_bpe", tmp_path / "tok", post_processor=kind), corpus).folder
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    inner = backend.encode(TEXT, add_special_tokens=False).ids
    assert backend.encode(TEXT).ids == [0, *inner, 2]
    pair = backend.encode("一", "二").tokens
    assert pair.count("</s>") == (3 if kind == "roberta" else 2)
    assert Encoder(load_tokenizer(folder)).encode([TEXT])[0].tolist() == [*inner, 2]
    parts = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert {role: parts[role] for role in parts if role.endswith("_token")} == {
        "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>",
        "unk_token": "<unk>", "mask_token": "<mask>",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "extend", "base": None}, "needs `base`"),
        ({"type": "byte_bpe", "corpus": None}, "needs `corpus`"),
        ({"type": "wordpiece"}, r"needs \[UNK\]"),
        ({"type": "word"}, r"needs \[UNK\]"),
        ({"type": "byte_bpe", "post_processor": "bert"}, "needs <s> and </s>"),
        ({"type": "byte_bpe", "eod": "</s>"}, "is not among `special_tokens`"),
    ],
)
def test_a_config_that_cannot_work_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TokenizerConfig.model_validate({"vocab_size": 1000, "corpus": "c.yaml", "out": "o", **settings})


def test_no_corpus_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none was given"):
        train_tokenizer(config_of("byte_bpe", tmp_path / "tok"))


@pytest.mark.parametrize("path", sorted((ROOT / "configs/tokenizers").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_tokenizer_config_of_the_project_is_right(path: Path) -> None:
    config = load_config(TokenizerConfig, path)
    if config.corpus is not None:
        load_config(PreprocessConfig, ROOT / config.corpus)
    assert config.out == f"data/tokenizers/{path.stem}"
