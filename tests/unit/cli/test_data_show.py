"""`lmbatch data show`: from a step back to its documents."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lmbatch.cli import cli
from lmbatch.errors import UsageError
from lmbatch.loader import BatchLoader, documents_of, open_train_data, show_samples
from lmbatch.train import train
from lmbatch.train.metrics import read_metrics, training_rows
from support import masked_corpus
from support.drive import preprocess_here
from support.tiny_corpus import write_corpus
from support.tiny_run import tiny_config
from support.wudao import config_for, write_files, write_tokenizer


def show(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["data", "show", *map(str, arguments)])


def shown(*arguments: object) -> dict:
    done = show(*arguments, "--json")
    assert done.exception is None, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of six steps: packed, windowed over several epochs, and of a corpus that was cut into examples."""
    folder = tmp_path_factory.mktemp("shown")
    packed, cut = write_corpus(folder / "packed-store"), write_corpus(folder / "cut-store", length=33)
    small = write_corpus(folder / "small-store", documents=30)
    for name, store, data in (
        ("packed", packed, {}),
        ("windowed", small, {"shuffle": "windowed", "window_shards": 1, "document_attention": True}),
        ("cut", cut, {}),
    ):
        settings = {"run": {"name": name}, "data": {"sequence_length": 32, **data}, "batch": {"size": 9, "micro": 3}}
        train(tiny_config(store, folder, **settings, steps=6, evaluate={"batches": 0}))
    return folder


@pytest.mark.parametrize("name", ["packed", "windowed", "cut"])
def test_the_parts_are_the_tokens_that_were_trained_on(runs: Path, name: str) -> None:
    store = {"windowed": "small"}.get(name, name)
    config = tiny_config(str(runs / f"{store}-store"), runs)
    windowed = {"shuffle": "windowed", "window_shards": 1} if name == "windowed" else {}
    facts = shown(runs / name, "--step", 4)
    assert facts["samples"] == [27, 36]
    with open_train_data(config.data.model_copy(update=windowed), seed=1) as data:
        loader = BatchLoader(data.order, data.reader, batch_size=9, micro=9, start_sample=27)
        (batch,) = next(loader).batches
        loader.close()
        for sample, row in zip(facts["made_of"], batch.rows(), strict=True):
            assert sample["tokens"] == len(row)
            tokens = [
                np.fromfile(data.store.local_path(part["shard"]), data.manifest.dtype)[
                    part["start"] : part["start"] + part["end"] - part["first"]
                ]
                for part in sample["parts"]
            ]
            assert np.array_equal(np.concatenate(tokens), row)
            origins = documents_of(data.store, data.manifest, "train", data.spans(sample["sample"]))
            assert {(part["path"], part["position"]) for part in sample["parts"]} == {
                (origin.path, origin.position) for origin in origins
            }
            for part, ids in zip(sample["parts"], tokens, strict=True):
                assert 0 <= part["first"] < part["end"] <= part["tokens"]
                assert (int(ids[-1]) == 0) == (part["end"] == part["tokens"]) or name == "cut"  # EOD is id 0


@pytest.mark.parametrize("name", ["packed", "windowed", "cut"])
def test_every_step_is_as_it_was_trained(runs: Path, name: str) -> None:
    for step in (1, 6):
        assert shown(runs / name, "--step", step, "--check")["as_trained"] is True
    rows = {row["step"]: row["samples"] for row in training_rows(read_metrics(runs / name))}
    assert shown(runs / name, "--step", 6)["samples"] == rows[6]


def test_other_tokens_are_found(runs: Path, tmp_path: Path) -> None:
    """As if the seed in the folder were not the run's."""
    for path in ("config.yaml", "metrics.jsonl"):
        text = (runs / "packed" / path).read_text(encoding="utf-8")
        (tmp_path / path).write_text(text.replace("\nseed: 1\n", "\nseed: 2\n"), encoding="utf-8")
    done = show(tmp_path, "--step", 3, "--check")
    assert done.exit_code == 1
    assert "NOT" in done.stdout
    assert show(tmp_path, "--step", 3).exit_code == 0


def test_one_sample_and_its_text(runs: Path) -> None:
    facts = shown(runs / "packed", "--step", 2, "--sample", 3, "--text")
    (sample,) = facts["made_of"]
    assert sample["sample"] == 12
    assert "".join(part["text"] for part in sample["parts"]).count("<|endoftext|>") >= len(sample["parts"]) - 1
    done = show(runs / "packed", "--step", 2, "--sample", 3, "--text")
    assert "samples 9 to 17" in done.stdout
    assert f"tiny.json at {sample['parts'][0]['position']}" in done.stdout
    assert isinstance(show(runs / "packed", "--step", 2, "--sample", 9).exception, UsageError)


def test_a_step_to_come(runs: Path) -> None:
    facts = shown(runs / "packed", "--step", 100)
    assert (facts["taken"], facts["samples"], facts["as_trained"]) == (False, [891, 900], None)
    assert "not taken yet" in show(runs / "packed", "--step", 100).stdout
    assert isinstance(show(runs / "packed", "--step", 100, "--check").exception, UsageError)


def test_a_corpus_that_has_moved(runs: Path, tmp_path: Path) -> None:
    config = (runs / "packed" / "config.yaml").read_text(encoding="utf-8")
    (tmp_path / "config.yaml").write_text(config.replace("packed-store", "nowhere"), encoding="utf-8")
    assert show(tmp_path, "--step", 1).exit_code != 0
    assert shown(tmp_path, "--step", 1, "--store", runs / "packed-store")["samples"] == [0, 9]
    assert isinstance(show(tmp_path / "..", "--step", 1).exception, UsageError)


def test_documents_are_shown_without_their_tokens(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(str(runs / "packed-store"), runs)
    with open_train_data(config.data, seed=1) as data:
        monkeypatch.setattr(data.reader, "tokens", lambda shard: pytest.fail("tokens were read"))
        assert len(show_samples(data, range(5))) == 5


def test_examples_of_several_documents(tmp_path: Path) -> None:
    """Packed by best fit: every document's part in an example ends with its EOD, or was cut."""
    write_files(tmp_path / "raw", files=1)
    write_tokenizer(tmp_path / "tok")
    chunking = {"mode": "best_fit", "length": 48}
    preprocess_here(config_for(tmp_path, chunking=chunking, tasks={"bytes": 10**6}))
    data = {"document_attention": True, "sequence_length": 48}
    settings = {"data": data, "steps": 2, "evaluate": {"batches": 0}}
    train(tiny_config(str(tmp_path / "store"), tmp_path, **settings))
    facts = shown(tmp_path / "tiny", "--step", 2, "--text", "--check")
    assert facts["as_trained"] is True
    assert any(len(sample["parts"]) > 2 for sample in facts["made_of"])
    for sample in facts["made_of"]:
        assert sum(part["end"] - part["first"] for part in sample["parts"]) == sample["tokens"]
        assert len({(part["path"], part["position"]) for part in sample["parts"]}) == len(sample["parts"])
        for part in sample["parts"]:
            assert "<|endoftext|>" not in part["text"].removesuffix("<|endoftext|>")


def test_hidden_tokens_count_too(tmp_path: Path) -> None:
    """The digest of a masked run covers what was hidden, and a sample has a first token that no shard has."""
    store = masked_corpus.write_corpus(tmp_path / "masked")
    train(masked_corpus.masked_config(store, tmp_path, steps=2, evaluate={"batches": 0}))
    for step in (1, 2):
        assert shown(tmp_path / "tiny", "--step", step, "--check")["as_trained"] is True
