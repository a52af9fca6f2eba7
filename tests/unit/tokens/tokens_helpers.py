"""Small tokenizers of every kind that has a fast engine, and an engine that is wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from lmbatch.tokens import TextTokenizer
from lmbatch.tokens.engines import HuggingFaceEngine, Ids
from lmbatch.tokens.engines.adversarial import adversarial_texts

EOD = "<|endoftext|>"
REAL = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).resolve().parents[3].glob("*.md"))]
TRAINING = [
    "为了保护专利权人的合法权益，鼓励发明创造，推动发明创造的应用，提高创新能力，制定本法。",
    "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。",
    "He said “hello”, the tokenizers of GPT-2 and BERT aren't alike. 3.14159 😀",
    *REAL,
]
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def gpt2() -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return trained_bpe(backend)


def qwen() -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    return trained_bpe(backend)


def trained_bpe(backend: Tokenizer) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=1200, special_tokens=[EOD, "<pad>"], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))  # fmt: skip
    backend.train_from_iterator(TRAINING, trainer)
    return backend


def bert(*, lowercase: bool = True) -> Tokenizer:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # type: ignore[call-arg]
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", EOD]
    backend.train_from_iterator(TRAINING, trainers.WordPieceTrainer(vocab_size=1500, special_tokens=specials,
                                                                    show_progress=False))  # fmt: skip
    return backend


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": gpt2,
    "qwen": qwen,
    "bert": bert,
    "bert-cased": lambda: bert(lowercase=False),
}


class Double:
    """Hugging Face's ids, but wrong for every text that holds one of ``traps``."""

    name = "double"

    def __init__(self, tokenizer: TextTokenizer, *traps: str, error: BaseException | None = None) -> None:
        self._right = HuggingFaceEngine(tokenizer.backend)
        self._traps = traps
        self._error = error
        self.calls = 0

    def encode(self, texts: Sequence[str]) -> Ids:
        self.calls += 1
        ids = self._right.encode(texts)
        for number, text in enumerate(texts):
            if any(trap in text for trap in self._traps):
                if self._error is not None:
                    raise self._error
                flat = ids.flat.copy()
                flat[int(ids.ends[number]) - 1] ^= 1
                ids = Ids(flat, ids.ends)
        return ids


SPECIALS = ["<|endoftext|>", "[SEP]", "[MASK]"]


def mixed_text(seed: int) -> str:
    """Hostile and ordinary text in random order, glued together with and without a sign."""
    draw = random.Random(seed)
    parts = [
        *adversarial_texts(SPECIALS),
        "为了保护专利权人的合法权益",
        "the tokenizers aren't alike",
        "GPT-2，",
        "\n\n",
    ]
    return "".join(draw.choice(parts) + draw.choice(["", " ", "，", "。\n", "x", "中"]) for _ in range(150))
