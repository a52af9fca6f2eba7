"""Each recipe at its small size, from raw text to a model that plain transformers loads and that answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import pytest
from recipes.table import RECIPES, Recipe
from transformers import AutoTokenizer

from lmbatch.config import PreprocessConfig, load_config
from lmbatch.corpus import Document, build_cleaner
from lmbatch.tokens import Encoder, load_tokenizer
from lmbatch.train.attempts import read_attempts
from lmbatch.train.metrics import last_step, read_metrics, training_rows
from support.corpus_files import read_split
from support.scripts import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
INTERRUPTED = "s0"  # whose training is killed once
KILL_AT = 25
# Entries of the tokenizer, and ids of special tokens, as the published recipes have them.
PUBLISHED = {
    "s0": (21_129, {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "<|endoftext|>": 21_128}),
    "s2": (151_646, {"<|endoftext|>": 151_643, "<|im_start|>": 151_644, "<|im_end|>": 151_645}),
}
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the recipes keep their data and runs: not in the repository."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "configs").symlink_to(ROOT / "configs")
    return folder


def run_recipe(name: str, home: Path) -> dict[str, Any]:
    done = subprocess.run([*command(name), "--json"], cwd=home, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True)
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def command(name: str) -> list[str]:
    return [sys.executable, "-m", "recipes", name]


def lmbatch_json(home: Path, *arguments: str) -> dict[str, Any]:
    verb = [sys.executable, "-m", "lmbatch", *arguments, "--json"]
    done = subprocess.run(verb, cwd=home, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True)
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def kill_in_training(recipe: Recipe, home: Path) -> None:
    """Run the recipe until its training has gone past a checkpoint, and kill the training with no notice."""
    run = home / "runs" / recipe.config("train", "small").stem
    process = subprocess.Popen(command(recipe.name), cwd=home, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 900
    saved = run / "checkpoints/step-00000020/receipt.json"
    while last_step(read_metrics(run)) < KILL_AT or not saved.exists():
        assert process.poll() is None, "the recipe ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(read_attempts(run)[-1].pid, signal.SIGKILL)
    assert process.wait() != 0


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_from_raw_text_to_inference(name: str, home: Path) -> None:
    recipe = RECIPES[name]
    if name == INTERRUPTED:
        kill_in_training(recipe, home)
    outcome = run_recipe(name, home)
    assert (outcome["recipe"], outcome["size"]) == (name, "small")
    assert 0 < outcome["kept_by_seed"] <= 1
    assert len(outcome["samples"]) == len(recipe.prompts)
    for prompt, text in zip(recipe.prompts, outcome["samples"], strict=True):
        head, *_ = prompt.split("<mask>")
        assert text.startswith(head.rstrip())
        assert text.strip() not in ("", prompt.strip())
        assert "<mask>" not in text
    run = home / "runs" / outcome["run"]
    losses = [row["loss"] for row in training_rows(read_metrics(run))]
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])
    attempts = read_attempts(run)
    assert [attempt.why for attempt in attempts][-1] == "finished"
    if name == INTERRUPTED:
        assert [attempt.why for attempt in attempts] == ["died without notice", "finished"]
        assert attempts[1].resumed_from == 20
    model = json.loads((home / outcome["export"] / "config.json").read_text(encoding="utf-8"))
    assert model["architectures"]
    assert outcome["parameters"] == json.loads((run / "model.json").read_text())["parameters"]["total"]


def corpus_of(recipe: Recipe, home: Path) -> PreprocessConfig:
    path = home / recipe.config("corpora", "small")
    config = load_config(PreprocessConfig, path)
    return load_config(PreprocessConfig, path, [f"corpus.raw={home / config.corpus.raw}"])


def texts_of(recipe: Recipe, home: Path) -> list[str]:
    """The documents that lmbatch keeps, cleaned."""
    config = corpus_of(recipe, home)
    clean = build_cleaner(config.cleaning)
    cleaned = [clean(record) for record in read_split(config.corpus, 2**62) if isinstance(record, Document)]
    return [document.text for document in cleaned if isinstance(document, Document)]


def tokens_of_the_seed(tokenizer: Any, texts: list[str]) -> int:
    """The tokens of text that the published way trains on: chunks of 512, shorter ones thrown away."""

    def cut(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        found = tokenizer(
            batch["text"], truncation=True, max_length=512, return_overflowing_tokens=True, return_length=True
        )
        pairs = zip(found["length"], found["input_ids"], strict=True)
        return {"input_ids": [ids for length, ids in pairs if length == 512]}

    rows = datasets.Dataset.from_dict({"text": texts}).map(cut, batched=True, remove_columns=["text"])
    around = len(tokenizer("")["input_ids"])  # [CLS] and [SEP], or nothing
    return sum(len(ids) - around for ids in rows["input_ids"])


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_tokenizer_is_the_published_one_and_what_the_published_way_loses_is_as_counted(
    name: str, home: Path
) -> None:
    recipe, (size, ids) = RECIPES[name], PUBLISHED[name]
    if not (home / "data" / "shards").is_dir():
        run_recipe(name, home)
    corpus = corpus_of(recipe, home)
    ours = load_tokenizer(home / corpus.tokenizer.path, corpus.tokenizer.eod)
    assert ours.size == size
    assert {token: ours.backend.token_to_id(token) for token in ids} == ids
    assert ours.eod_token == "<|endoftext|>"
    if name == "s2":
        assert Encoder(ours).encode(["Hello world，你好"])[0].tolist() == [9707, 1879, 3837, 108386, ours.eod_id]

    texts = texts_of(recipe, home)
    theirs = AutoTokenizer.from_pretrained(home / "data" / "tokenizers" / str(recipe.published))
    way = recipe.seed_way
    kept = tokens_of_the_seed(theirs, texts)
    assert kept
    store = f"data/shards/{corpus.corpus.name}"
    counted = lmbatch_json(home, "data", "kept", store, "--mode", way.mode, "--length", str(way.length))
    assert (counted["documents"], counted["kept"]) == (len(texts), kept)
    sets = [part for item in (f"chunking.mode={way.mode}", f"chunking.length={way.length}") for part in ("--set", item)]
    config = str(recipe.config("corpora", "small"))
    cut = lmbatch_json(home, "preprocess", "--config", config, *sets, "--store", f"{store}-as-published")
    ledger = cut["ledger"]["tokens"]
    assert ledger["encoded"] == counted["encoded"]
    assert ledger["encoded"] - sum(ledger["thrown_away"].values()) == kept
