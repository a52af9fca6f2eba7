"""The recipes at full size: parameters, schedule, batch and data of each are those of the way that it stands for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from recipes.run import RecipeRun
from recipes.table import RECIPES, SIZES
from torch.optim import SGD
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from lmbatch.config import ModelConfig, PreprocessConfig, TokenizerConfig, TrainConfig, fingerprint, load_config
from lmbatch.config.load import build, read_layers
from lmbatch.errors import UsageError
from lmbatch.model import MaskedIds, build_model, parameter_counts
from lmbatch.train.attempts import AttemptLog
from lmbatch.train.schedule import lr_at, total_steps
from support.scripts import ROOT

CONFIGS = ROOT / "configs"
STEPS = 40_000  # of a run whose length does not matter
SHAPES = {"cosine": get_cosine_schedule_with_warmup, "linear": get_linear_schedule_with_warmup}


@dataclass(frozen=True)
class Expected:
    """The numbers of a recipe: what its own publication says, or what follows from it."""

    vocabulary: int
    parameters: int
    batch: int
    lr: float
    schedule: str
    warmup: int
    length: int
    decay: float
    also: dict[str, object] = field(default_factory=dict)  # other keys of the training config
    shape: dict[str, int] = field(default_factory=dict)  # of a model whose folder decides


EXPECTED = {
    "s0": Expected(
        vocabulary=21_129, parameters=101_676_288, batch=20 * 8, lr=5e-4, schedule="cosine", warmup=1000, length=512,
        decay=0.1, also={"epochs": 2, "precision": "fp16", "evaluate.every": 2000, "save.every": 2000},
    ),
    "s1": Expected(
        vocabulary=52_000, parameters=83_504_416, batch=64, lr=5e-5, schedule="linear", warmup=0, length=128, decay=0.0,
        also={"epochs": 1, "save.every": 10_000, "save.keep": 2, "objective.mask_share": 0.15},
    ),
    "s2": Expected(
        vocabulary=151_646, parameters=123_277_824, batch=24 * 12, lr=5e-4, schedule="cosine", warmup=1000, length=512,
        decay=0.1, also={"epochs": 2, "precision": "bf16", "save.every": 5000, "save.keep": 10},
    ),
    "s3": Expected(
        vocabulary=50_005, parameters=124_246_272, batch=32, lr=1.5e-4, schedule="linear", warmup=2000, length=1024,
        decay=0.01, also={"precision": "fp16", "save.every_epoch": True, "tensorboard": True},
    ),
    "s4": Expected(
        vocabulary=46_145, parameters=349_565_952, batch=16 * 4, lr=5e-5, schedule="linear", warmup=0, length=384,
        decay=0.0, also={"epochs": 1, "log_every": 10, "model.base": "data/models/bloom_389m_zh"},
        shape={"hidden_size": 1024, "n_layer": 24, "n_head": 16},
    ),
}  # fmt: skip
CHECKED = sorted(set(EXPECTED) & set(RECIPES))


@pytest.fixture(autouse=True)
def _at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def train_config(name: str) -> TrainConfig:
    return load_config(TrainConfig, RECIPES[name].config("train", "full"))


def size_of(model: ModelConfig, vocabulary: int, length: int, *, masked: bool = False) -> int:
    """Parameters, counted without memory for them."""
    with torch.device("meta"):
        built = build_model(
            model, vocab_size=vocabulary, sequence_length=length, eod_id=2, seed=0,
            masked=MaskedIds(0, 1) if masked else None,
        )  # fmt: skip
    return parameter_counts(built).total


@pytest.mark.parametrize("name", CHECKED)
def test_the_full_model_has_the_published_size(name: str) -> None:
    config, expected = train_config(name), EXPECTED[name]
    masked = config.objective is not None
    model = config.model.model_copy(update={"config": config.model.config | expected.shape})
    assert size_of(model, expected.vocabulary, expected.length, masked=masked) == expected.parameters


def test_wikillm_with_a_key_value_head_for_each_head_is_the_larger_one() -> None:
    model = train_config("s2").model
    assert model.config["num_key_value_heads"] == 2
    larger = model.model_copy(update={"config": model.config | {"num_key_value_heads": 8}})
    assert size_of(larger, 151_646, 512) == 128_005_632


@pytest.mark.parametrize("name", CHECKED)
def test_the_learning_rate_is_transformers_own(name: str) -> None:
    """In the warm-up ours is one step ahead: the Trainer takes its first step with a learning rate of zero."""
    config, expected = train_config(name), EXPECTED[name]
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=expected.lr)
    theirs = SHAPES[expected.schedule](optimizer, expected.warmup, STEPS).lr_lambdas[0]
    for step in (0, 1, 499, 999, 1000, 1001, 1999, 2000, 2001, 20_000, STEPS - 1):
        shifted = step + 1 if step < expected.warmup else step
        found = lr_at(step, config.optimizer, config.schedule, STEPS)
        assert found == pytest.approx(expected.lr * theirs(shifted), rel=1e-9)


@pytest.mark.parametrize("name", CHECKED)
def test_batch_length_and_the_rest_are_the_published_ones(name: str) -> None:
    config, expected = train_config(name), EXPECTED[name]
    assert (config.batch.size, config.data.sequence_length) == (expected.batch, expected.length)
    assert config.batch.size % config.batch.micro == 0
    assert (config.schedule.name, config.schedule.warmup_steps) == (expected.schedule, expected.warmup)
    assert (config.optimizer.weight_decay, config.optimizer.clip_norm) == (expected.decay, 1.0)
    assert (config.optimizer.betas, config.optimizer.eps) == ((0.9, 0.999), 1e-8)
    for key, value in expected.also.items():
        found = config
        for part in key.split("."):
            found = getattr(found, part)
        assert found == value, key


def test_gpt2_samples_as_its_chat_page_does() -> None:
    generate = train_config("s0").samples.generate
    assert (generate.num_beams, generate.no_repeat_ngram_size, generate.max_new_tokens) == (5, 2, 200)
    assert generate.early_stopping
    assert generate.temperature == 0


def test_wikillm_logs_its_prompts_to_swanlab_and_tests_on_a_tenth() -> None:
    config = train_config("s2")
    assert config.samples.prompts == ("牛顿", "北京市", "亚洲历史", "人工智能")
    assert config.tracking is not None
    assert config.tracking.swanlab is not None
    corpus = load_config(PreprocessConfig, RECIPES["s2"].config("corpora", "full"))
    assert (corpus.split.validation_fraction, corpus.split.salt) == (0.1, "2333")


def test_word_gpt2_has_the_published_shape_and_vocabulary() -> None:
    model = train_config("s3").model
    assert {key: model.config[key] for key in ("initializer_range", "layer_norm_epsilon")} == {
        "initializer_range": 0.02, "layer_norm_epsilon": 1e-5,
    }  # fmt: skip
    tokenizer = load_config(TokenizerConfig, RECIPES["s3"].config("tokenizers", "full"))
    assert tokenizer.vocab_size == 50_000 + len(tokenizer.special_tokens)
    assert tokenizer.special_tokens == ("[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]")
    corpus = load_config(PreprocessConfig, RECIPES["s3"].config("corpora", "full"))
    assert corpus.cleaning.min_characters == 128


def test_ten_thousand_texts_make_the_published_156_steps() -> None:
    """One example a text, as the walk-through truncates them; packed, it is the tokens that count."""
    config = train_config("s4")
    corpus = load_config(PreprocessConfig, RECIPES["s4"].config("corpora", "full"))
    assert corpus.corpus.max_records == 10_000
    assert total_steps(config, corpus.corpus.max_records) == 156
    assert corpus.chunking is None
    assert RECIPES["s4"].seed_way.length == config.data.sequence_length == 384
    assert RECIPES["s4"].prompts[0] == config.samples.prompts[0] == "下面是一则娱乐新闻，"


def test_what_is_continued_at_size_small_is_made_before() -> None:
    """The stand-in comes from the same shards, and its table is padded as BLOOM's is."""
    train, export = RECIPES["s4"].before_small
    small = load_config(TrainConfig, RECIPES["s4"].config("train", "small"))
    base = load_config(TrainConfig, train[-1])
    assert small.model.base == export[-1]
    assert base.data.store == small.data.store
    tokenizer = load_config(TokenizerConfig, RECIPES["s4"].config("tokenizers", "small"))
    assert base.model.config["vocab_size"] > tokenizer.vocab_size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", RECIPES)
def test_the_configs_of_a_recipe_fit_together(name: str, size) -> None:
    recipe = RECIPES[name]
    corpus = load_config(PreprocessConfig, recipe.config("corpora", size))
    train = load_config(TrainConfig, recipe.config("train", size))
    assert train.data.store == f"data/shards/{corpus.corpus.name}"
    assert train.run.name == recipe.config("train", size).stem
    if recipe.trained_tokenizer(size):
        tokenizer = load_config(TokenizerConfig, recipe.config("tokenizers", size))
        assert tokenizer.out == corpus.tokenizer.path
    if recipe.published and not recipe.tokenizer:
        assert corpus.tokenizer.path == f"data/tokenizers/{recipe.published}"
    if size == "small":
        assert (train.steps, train.epochs) != (None, None)
        assert train.run.name.endswith("_small")


def small_changes(name: str) -> dict:
    path = CONFIGS / "train" / f"{RECIPES[name].train}_small.yaml"
    mapping = read_layers(path)
    full = read_layers(CONFIGS / "train" / f"{RECIPES[name].train}.yaml")
    return {key: value for key, value in mapping.items() if full.get(key) != value}


@pytest.mark.parametrize("name", CHECKED)
def test_a_small_recipe_changes_sizes_and_nothing_else(name: str) -> None:
    sizes = {"run", "data", "model", "optimizer", "schedule", "batch", "epochs", "steps", "precision", "evaluate",
             "samples", "save", "log_every"}  # fmt: skip
    assert set(small_changes(name)) <= sizes
    small = load_config(TrainConfig, RECIPES[name].config("train", "small"))
    full = train_config(name)
    assert small.model.type == full.model.type
    assert small.schedule.name == full.schedule.name
    assert small.objective == full.objective


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_loads(path: Path) -> None:
    kinds = {"corpora": PreprocessConfig, "tokenizers": TokenizerConfig, "train": TrainConfig}
    if path.parent.name == "models":
        build(ModelConfig, read_layers(path)["model"], str(path))
    elif path.parent.name in kinds and path.stem != "base":
        load_config(kinds[path.parent.name], path)


@pytest.mark.parametrize("name", CHECKED)
def test_full_size_says_what_it_lacks_and_how_to_get_it(name: str, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "configs").symlink_to(CONFIGS)
    monkeypatch.chdir(tmp_path)
    run = RecipeRun(RECIPES[name], "full", None, story=None)
    with pytest.raises(UsageError) as caught:
        run.run()
    assert f"its raw corpus {RECIPES[name].corpus} in data/raw/{RECIPES[name].corpus}" in str(caught.value)
    assert f"make preprocess CORPUS={RECIPES[name].corpus} RAW=" in caught.value.remedy
    assert f"make recipe NAME={name} SIZE=small" in caught.value.remedy
    assert sorted(path.name for path in tmp_path.iterdir()) == ["configs"]


def test_a_finished_run_of_another_config_is_not_taken_for_this_one(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "configs").symlink_to(CONFIGS)
    monkeypatch.chdir(tmp_path)
    recipe = RecipeRun(RECIPES["s0"], "small", None, story=None)
    own = fingerprint(load_config(TrainConfig, RECIPES["s0"].config("train", "small")))
    found = [recipe._trained()]
    for config, why in (("sha256:of another", "finished"), (own, "stopped"), (own, "finished")):
        ledger = AttemptLog(tmp_path / "runs" / "s0_gpt2_small")
        ledger.started(world_size=1, code_version="0", config=config)
        ledger.ended(why, detail=None, last_step=60, last_saved_step=60)
        found.append(recipe._trained())
    assert found == [False, False, False, True]
