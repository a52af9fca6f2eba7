"""The recipes: which configs each consists of, what its published way keeps of the text, and how it is tried out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Size = Literal["small", "full"]
SIZES: tuple[Size, ...] = ("small", "full")
CONFIGS = Path("configs")


@dataclass(frozen=True, slots=True)
class SeedWay:
    """How the published recipe cuts documents, as the options of `lmbatch data kept`, and in words."""

    mode: Literal["drop_short", "truncate"]
    length: int
    words: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """One recipe. ``corpus``, ``tokenizer`` and ``train`` name configs without `.yaml`; at size small those with
    `_small` behind the name are taken where they exist.

    ``small_tokenizer`` is a tokenizer config of size small alone, where the full size takes what is there already.
    ``published`` is the tokenizer that `lmbatch tokenizer fetch` gets; ``weights`` the folder (not at size small) with
    what is trained on further, and ``obtain_weights`` how it is got. ``before_small`` are verbs that run before the
    training at size small. ``infer`` is the verb that tries the export out, with its options, and ``auto`` is
    transformers' class for it.
    """

    name: str
    title: str
    corpus: str
    train: str
    seed_way: SeedWay
    prompts: tuple[str, ...]
    infer: tuple[str, ...]
    tokenizer: str | None = None
    published: str | None = None
    small_tokenizer: str | None = None
    weights: str | None = None
    obtain_weights: str = ""
    before_small: tuple[tuple[str, ...], ...] = ()
    small_infer: tuple[str, ...] = field(default=())
    auto: str = "AutoModelForCausalLM"

    def config(self, kind: Literal["corpora", "tokenizers", "train"], size: Size) -> Path:
        """The config file of this recipe in configs/KIND."""
        name = {"corpora": self.corpus, "tokenizers": self.trained_tokenizer(size), "train": self.train}[kind]
        small = CONFIGS / kind / f"{name}_small.yaml"
        return small if size == "small" and small.is_file() else CONFIGS / kind / f"{name}.yaml"

    def trained_tokenizer(self, size: Size) -> str | None:
        """The name of the config that a tokenizer is trained or extended by, if any."""
        return self.small_tokenizer or self.tokenizer if size == "small" else self.tokenizer

    def inference(self, size: Size) -> tuple[str, ...]:
        """The verb that tries the model out, with its options."""
        return self.small_infer if size == "small" and self.small_infer else self.infer


S0 = Recipe(
    name="s0",
    title="GPT-2 on 15 GB of Chinese, one RTX 3090",
    corpus="gpt2_csv_15g",
    published="bert-base-chinese",
    tokenizer="bert_base_chinese_eod",
    train="s0_gpt2",
    # Its tokenizer puts [CLS] and [SEP] around every chunk of 512, so 510 tokens of it are text.
    seed_way=SeedWay("drop_short", 510, "chunks of 512 with [CLS] and [SEP], shorter ones thrown away"),
    prompts=("第一条 为了", "话说"),
    infer=("generate", "--num-beams", "5", "--no-repeat-ngram-size", "2", "--early-stopping", "--temperature", "0",
           "--max-new-tokens", "200"),
    small_infer=("generate", "--num-beams", "5", "--no-repeat-ngram-size", "2", "--early-stopping",
                 "--temperature", "0", "--max-new-tokens", "60"),
)  # fmt: skip

S1 = Recipe(
    name="s1",
    title="KantaiBERT, a RoBERTa from scratch",
    corpus="kant_txt",
    tokenizer="kant_bpe",
    train="s1_roberta",
    # A block of 128 has <s> and </s>; lmbatch's `truncate` counts one token for the end of an example.
    seed_way=SeedWay("truncate", 127, "lines cut off at 128 tokens, <s> and </s> among them"),
    prompts=("Human thinking involves human <mask>.", "for giving a proper long <mask>."),
    infer=("fill-mask", "--top-k", "5"),
    auto="AutoModelForMaskedLM",
)

S2 = Recipe(
    name="s2",
    title="WikiLLM, a small Qwen2 on the Chinese Wikipedia",
    corpus="wikipedia_zh",
    published="qwen2",
    train="s2_qwen2",
    seed_way=SeedWay("drop_short", 512, "chunks of 512, shorter ones thrown away"),
    prompts=("牛顿", "北京市", "亚洲历史", "人工智能"),
    infer=("generate", "--temperature", "0.7", "--top-p", "0.95", "--max-new-tokens", "100"),
    small_infer=("generate", "--temperature", "0.7", "--top-p", "0.95", "--max-new-tokens", "30"),
)

S3 = Recipe(
    name="s3",
    title="GPT-2 over a vocabulary of Chinese words",
    corpus="plain_txt",
    tokenizer="plain_words",
    train="s3_gpt2_words",
    # It cuts nothing off what its filter leaves, so the length is one that no text has.
    seed_way=SeedWay("truncate", 10**9, "texts below 128 characters dropped, as here; the rest is kept"),
    prompts=("国家", "话说"),
    infer=("generate", "--temperature", "1.0", "--top-k", "8", "--top-p", "0.95", "--max-new-tokens", "50"),
    small_infer=("generate", "--temperature", "1.0", "--top-k", "8", "--top-p", "0.95", "--max-new-tokens", "30"),
)

S4 = Recipe(
    name="s4",
    title="Continued pre-training of a small BLOOM",
    corpus="wikipedia_cn_filtered",
    small_tokenizer="s4_bpe_small",
    train="s4_bloom",
    seed_way=SeedWay("truncate", 384, "texts cut off at 384 tokens"),
    prompts=("下面是一则娱乐新闻，", "第一条"),
    infer=("generate", "--temperature", "1.0", "--top-k", "50", "--max-new-tokens", "100"),
    small_infer=("generate", "--temperature", "1.0", "--top-k", "50", "--max-new-tokens", "30"),
    weights="data/models/bloom_389m_zh",
    obtain_weights="Where there is a network:\n"
    "  hf download Langboat/bloom-389m-zh --local-dir data/models/bloom_389m_zh\n"
    "If its weights are pytorch_model.bin and no safetensors, and you trust them: --set model.base_pickle=true",
    before_small=(
        ("train", "--config", "configs/train/s4_base_small.yaml"),
        ("export", "runs/s4_base_small", "--out", "data/models/s4_base_small"),
    ),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (S0, S1, S2, S3, S4)}
