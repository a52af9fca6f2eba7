"""The spaces of WordPiece."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from lmbatch.config import GenerateConfig
from lmbatch.errors import TokenizerError
from lmbatch.infer import TextGenerator, folder, tidy_text
from lmbatch.infer.window import Window


@pytest.mark.parametrize(
    ("raw", "tidy"),
    [
        ("今 天 天 气 很 好", "今天天气很好"),
        ("今 天 ， 很 好 。 是 吗 ？", "今天，很好。是吗？"),
        ("AI 来 了", "AI 来了"),
        ("你 好 ， AI 来 了", "你好，AI 来了"),
        ("用 GPT 3 写 作", "用 GPT 3 写作"),
        ("hello world , ok", "hello world , ok"),
        ("《 三 国 演 义 》 （ 上 ）", "《三国演义》（上）"),
        ("他 说 “ 你 好 ” 。", "他说“你好”。"),
        ("he said “ hi ” to", "he said “ hi ” to"),
        ("安 녕 하세요 세계", "安 녕 하세요 세계"),
        ("か な カ ナ", "かなカナ"),
        ("𠮷 野 家", "𠮷野家"),
        ("第 一 行\n第 二 行", "第一行\n第二行"),
        ("   ", "   "),
        ("", ""),
    ],
)
def test_wordpiece(raw, tidy):
    assert tidy_text(raw, "WordPiece") == tidy


@pytest.mark.parametrize("kind", ["BPE", "Unigram", "WordLevel", ""])
def test_other_tokenizers_mean_their_spaces(kind):
    assert tidy_text("今 天 ， 好", kind) == "今 天 ， 好"


@given(st.text(alphabet="今天，。 ab1“”…—《》가かー\n"))
def test_once_is_enough_and_only_spaces_go(text):
    tidy = tidy_text(text, "WordPiece")
    assert tidy_text(tidy, "WordPiece") == tidy
    assert tidy.replace(" ", "") == text.replace(" ", "")


def test_the_prompt_is_left_as_it_was_written(model):
    """Only the continuation is tidied, its first space included."""
    generator = TextGenerator.__new__(TextGenerator)
    generator._kind, generator._eod_id = "WordPiece", 0
    words = {1: "今", 2: "天", 3: "好", 4: "AI"}
    generator._decode = lambda ids: " ".join(words[i] for i in ids)
    window = Window((1, 2), 0, 5)
    assert generator._completion("今 天", window, [3, 3, 0]).text == "今 天好好"
    assert generator._completion("今 天", window, [4, 3]).text == "今 天 AI 好"


def test_a_bert_folder_gives_tidy_text(tmp_path):
    """vocab.txt alone, as bert-base-chinese has it; transformers once built five entries from such a file."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "今", "天", "很", "好", "，"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    torch.manual_seed(3)
    config = GPT2Config(vocab_size=10, n_positions=16, n_embd=8, n_layer=1, n_head=1, eos_token_id=3, bos_token_id=3)
    generator = TextGenerator(GPT2LMHeadModel(config), tmp_path, context=16)
    (completion,) = generator.complete(["今天很"], GenerateConfig(max_new_tokens=12, temperature=9.0, seed=1))
    assert completion.tokens > 3
    assert " " not in completion.text
    assert "##" not in completion.text


def test_a_vocabulary_that_transformers_loses_is_refused(tmp_path, monkeypatch):
    (tmp_path / "vocab.txt").write_text("[UNK]\n今\n天\n", encoding="utf-8")
    monkeypatch.setattr(folder, "AutoTokenizer", type("Lossy", (), {"from_pretrained": lambda *_, **__: ["[UNK]"]}))
    with pytest.raises(TokenizerError, match="1 of the tokenizer's 3 entries"):
        folder.load_tokenizer(tmp_path)
