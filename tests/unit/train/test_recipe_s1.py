"""S1's configs against what its walk-through says: tokenizer, batch, schedule, and how lines become examples."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from transformers import AutoTokenizer, get_linear_schedule_with_warmup

from lmbatch.config import PreprocessConfig, TokenizerConfig, TrainConfig, load_config
from lmbatch.tokens import load_tokenizer
from lmbatch.tokens.train import train_tokenizer
from lmbatch.train.optimizer import build_optimizer
from lmbatch.train.schedule import lr_at, total_steps

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


@pytest.fixture(scope="module")
def full() -> TrainConfig:
    return load_config(TrainConfig, CONFIGS / "train" / "s1_roberta.yaml")


def test_the_schedule_is_the_trainers_default(full):
    import torch

    model = torch.nn.Linear(2, 2)
    optimizer = build_optimizer(model, full.optimizer)
    theirs = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.0)
    for group in optimizer.param_groups:
        for key in ("betas", "eps", "lr", "weight_decay"):
            assert group[key] == theirs.defaults[key], key
    total = total_steps(full, samples_per_epoch=170_960)
    assert total == 170_960 // 64 == 2671  # one epoch of batches of 64
    schedule = get_linear_schedule_with_warmup(theirs, 0, total)
    for step in range(total):
        if step in (0, 1, 1000, 1335, 2669, 2670):
            assert lr_at(step, full.optimizer, full.schedule, total) == pytest.approx(theirs.param_groups[0]["lr"])
        schedule.step()


def test_batch_objective_and_saving(full):
    assert (full.batch.size, full.epochs, full.steps) == (64, 1, None)
    assert (full.save.every, full.save.keep) == (10_000, 2)
    assert full.objective is not None
    assert (full.objective.name, full.objective.mask_share) == ("masked", 0.15)
    assert (full.optimizer.clip_norm, full.precision, full.seed) == (1.0, "fp32", 42)


@pytest.mark.parametrize("name", ["kant_txt", "kant_txt_small"])
def test_examples_fill_the_block_with_their_first_token(full, name):
    corpus = load_config(PreprocessConfig, CONFIGS / "corpora" / f"{name}.yaml")
    assert corpus.chunking is not None
    assert corpus.chunking.mode == "split_lines"
    assert corpus.chunking.most + 1 == full.data.sequence_length == 128


@pytest.mark.parametrize("size", ["", "_small"])
def test_the_configs_of_a_size_belong_together(size):
    tokenizer = load_config(TokenizerConfig, CONFIGS / "tokenizers" / f"kant_bpe{size}.yaml")
    corpus = load_config(PreprocessConfig, CONFIGS / "corpora" / f"kant_txt{size}.yaml")
    run = load_config(TrainConfig, CONFIGS / "train" / f"s1_roberta{size}.yaml")
    assert tokenizer.out == corpus.tokenizer.path
    assert tokenizer.corpus == f"configs/corpora/kant_txt{size}.yaml"
    assert run.data.store == f"data/shards/{corpus.corpus.name}"
    assert run.run.name == f"s1_roberta{size}"


def test_the_tokenizer_has_52_000_entries_and_the_special_ids_first(tmp_path):
    rng = random.Random(0)
    letters = "etaoinshrdlucmfw"
    words = ["".join(rng.choices(letters, k=rng.randrange(5, 11))) for _ in range(22_000)]
    (tmp_path / "words.txt").write_text("\n".join(" ".join(words[at : at + 40]) for at in range(0, 22_000, 40)) * 2)
    corpus = load_config(PreprocessConfig, CONFIGS / "corpora" / "kant_txt.yaml", (f"corpus.raw={tmp_path}",))
    config = load_config(TokenizerConfig, CONFIGS / "tokenizers" / "kant_bpe.yaml", (f"out={tmp_path / 'tok'}",))
    assert train_tokenizer(config, corpus).size == 52_000
    ours = load_tokenizer(tmp_path / "tok")
    assert [ours.backend.token_to_id(token) for token in SPECIAL] == [0, 1, 2, 3, 4]
    assert (ours.size, ours.largest_id, ours.eod_token) == (52_000, 51_999, "</s>")

    theirs = AutoTokenizer.from_pretrained(tmp_path / "tok")
    assert len(theirs) == 52_000
    assert theirs.model_max_length == 512
    ids = theirs("a proper long <mask>.")["input_ids"]
    assert (ids[0], ids[-1], ids.count(4)) == (0, 2, 1)
    # The space before a mask belongs to what it stands for.
    assert ids == [0, *theirs("a proper long", add_special_tokens=False)["input_ids"], 4, ids[-2], 2]
