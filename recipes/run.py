"""One recipe, stage by stage, with lmbatch's own verbs. What is done already is done: run it again to go on."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demo.story import Story, lmbatch, lmbatch_json, load_with_transformers, shards_sentence, status_sentence

from lmbatch.config import PreprocessConfig, TrainConfig, fingerprint, load_config
from lmbatch.corpus import list_inputs
from lmbatch.errors import InputMissingError, UsageError
from lmbatch.store import open_store
from lmbatch.train.attempts import read_attempts
from recipes.table import Recipe, Size


@dataclass(frozen=True)
class Outcome:
    """What a recipe came to: the table of recipes in the README is made of these."""

    recipe: str
    size: Size
    parameters: int
    tokens: int
    kept_by_seed: float
    samples: tuple[str, ...]
    run: str
    export: str

    def to_json(self) -> str:
        """One JSON document; Chinese stays readable."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)


class RecipeRun:
    """One recipe at one size, in the current folder (its data/ and runs/)."""

    def __init__(self, recipe: Recipe, size: Size, raw: str | None, story: Story) -> None:
        self._recipe, self._size, self._story = recipe, size, story
        self._raw = () if raw is None else ("--raw", raw)
        self._corpus_config = str(recipe.config("corpora", size))
        self._train_config = str(recipe.config("train", size))
        sets = () if raw is None else (f"corpus.raw={raw}",)
        self._corpus = load_config(PreprocessConfig, self._corpus_config, sets)
        self._train = load_config(TrainConfig, self._train_config)
        self._export = f"data/export/{self._train.run.name}"

    def run(self) -> Outcome:
        """Every stage in turn. Raises UsageError, before anything is done, if something must be obtained first."""
        if self._size == "full":
            self.check()
        kept = self._data()
        self._training()
        samples = self._inference()
        return Outcome(
            recipe=self._recipe.name, size=self._size, parameters=self._model_facts()["parameters"]["total"],
            tokens=kept["encoded"], kept_by_seed=kept["share"], samples=samples, run=self._train.run.name,
            export=self._export,
        )  # fmt: skip

    def check(self) -> None:
        """Raises UsageError that says how to get what is not there: raw corpus, tokenizer, weights."""
        missing = [text for text in (self._no_corpus(), self._no_tokenizer(), self._no_weights()) if text]
        if missing:
            raise UsageError(
                f"recipe {self._recipe.name} at full size lacks " + "; and ".join(text for text, _ in missing),
                remedy="\n\n".join(how.strip() for _, how in missing)
                + f"\n\nOr try it out first:  make recipe NAME={self._recipe.name} SIZE=small",
            )

    def _no_corpus(self) -> tuple[str, str] | None:
        corpus = self._corpus.corpus
        try:
            list_inputs(open_store(corpus.raw), corpus)
        except InputMissingError:
            return f"its raw corpus {corpus.name} in {corpus.raw}", corpus.obtain
        return None

    def _no_tokenizer(self) -> tuple[str, str] | None:
        """Only one that is neither trained here nor fetched can be missing."""
        path = self._corpus.tokenizer.path
        if self._recipe.trained_tokenizer(self._size) or self._recipe.published or Path(path).is_dir():
            return None
        return f"the tokenizer {path}", self._recipe.obtain_weights or f"Put a Hugging Face tokenizer into {path}."

    def _no_weights(self) -> tuple[str, str] | None:
        weights = self._recipe.weights
        return (
            None
            if weights is None or Path(weights).is_dir()
            else (f"weights in {weights}", self._recipe.obtain_weights)
        )

    def _data(self) -> dict[str, Any]:
        recipe, corpus = self._recipe, self._corpus.corpus
        with self._story.stage(f"corpus {corpus.name}") as say:
            say(lmbatch("corpus", "fetch", corpus.name) if self._size == "small" and not self._raw else corpus.raw)
        with self._story.stage("tokenizer") as say:
            self._tokenizer(say)
        store = self._train.data.store
        with self._story.stage("shards") as say:
            say(
                shards_sentence(
                    lmbatch_json("preprocess", "--config", self._corpus_config, *self._raw, "--store", store)
                )
            )
        with self._story.stage("tokens kept") as say:
            way = recipe.seed_way
            kept = lmbatch_json("data", "kept", store, "--mode", way.mode, "--length", str(way.length))
            say(f"here all {kept['encoded']:,} tokens of text; the published way ({way.words}) {kept['share']:.1%}")
        return kept

    def _tokenizer(self, say: Any) -> None:
        recipe = self._recipe
        if recipe.published:
            say(lmbatch("tokenizer", "fetch", recipe.published))
        trained = recipe.trained_tokenizer(self._size)
        if trained:
            say(lmbatch("tokenizer", "train", "--config", str(recipe.config("tokenizers", self._size)), *self._raw))
        if not (recipe.published or trained):
            say(self._corpus.tokenizer.path)

    def _training(self) -> None:
        if self._size == "small":
            for arguments in self._recipe.before_small:
                with self._story.stage(shlex.join(arguments)) as say:
                    say(lmbatch(*arguments))
        with self._story.stage("training") as say:
            if not self._trained():
                lmbatch("train", "--config", self._train_config)
            counts = self._model_facts()["parameters"]
            say(f"{counts['total']:,} parameters; {status_sentence(self._train.run.name)}")

    def _trained(self) -> bool:
        """Has a run of this very config come to its end?"""
        attempts = read_attempts(Path(self._train.run.dir) / self._train.run.name)
        return bool(attempts) and attempts[-1].why == "finished" and attempts[-1].config == fingerprint(self._train)

    def _model_facts(self) -> dict[str, Any]:
        path = Path(self._train.run.dir) / self._train.run.name / "model.json"
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return facts

    def _inference(self) -> tuple[str, ...]:
        recipe = self._recipe
        with self._story.stage("export") as say:
            say(lmbatch("export", f"{self._train.run.dir}/{self._train.run.name}", "--out", self._export))
            say(load_with_transformers(self._export, recipe.auto))
        verb, *options = recipe.inference(self._size)
        prompts = [part for prompt in recipe.prompts for part in ("-p", prompt)]
        with self._story.stage(verb) as say:
            say(shlex.join(["lmbatch", verb, self._export, *prompts, *options]))
            answers = json.loads(lmbatch(verb, self._export, *prompts, *options, "--json"))
        return tuple(answer["best" if "best" in answer else "text"] for answer in answers)
