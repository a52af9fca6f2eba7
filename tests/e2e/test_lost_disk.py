"""A node loses its disk: the run goes on from the object storage alone, and nothing shows it but the ledger."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lmbatch.config import TrainConfig
from lmbatch.train import train
from lmbatch.train.attempts import read_attempts
from lmbatch.train.recorder import Recorder
from lmbatch.train.records import read_records
from support.tiny_corpus import write_corpus
from support.tiny_run import assert_equal_runs, tiny_config

# Every step is compared with those before it, and many stand out.
GUARDS = {"on_spike": "warn", "spike_window": 3, "grad_spike_factor": 1.0001}


class DiskError(Exception):
    """What ends an attempt without notice."""


@pytest.fixture
def break_off(monkeypatch: pytest.MonkeyPatch):
    """Breaks the next attempt off after a step: by the stop file, or by an error."""
    original = Recorder.train

    def at(step: int, folder: Path | None) -> None:
        def train(self: Recorder, row: dict) -> None:
            original(self, row)
            if row["step"] == step:
                monkeypatch.setattr(Recorder, "train", original)
                if folder is None:
                    raise DiskError
                (folder / "stop").touch()

        monkeypatch.setattr(Recorder, "train", train)

    return at


def config_of(tmp_path: Path, corpus: str, name: str, **save: object) -> TrainConfig:
    return tiny_config(
        corpus, tmp_path, run={"name": name}, guards=GUARDS, save={"every": 5, **save},
        samples={"every": 8, "prompts": ["第一"], "generate": {"max_new_tokens": 3}},
    )  # fmt: skip


@pytest.mark.parametrize("ended", ["stopped", "failed"])
def test_a_run_goes_on_from_the_store_alone(tmp_path: Path, s3_uri: str, break_off, ended: str) -> None:
    corpus = write_corpus(tmp_path / "store")
    train(config_of(tmp_path, corpus, "quiet"))
    config, folder = config_of(tmp_path, corpus, "lost", store=s3_uri), tmp_path / "lost"
    break_off(13, folder if ended == "stopped" else None)
    if ended == "stopped":
        assert train(config).step == 13
    else:
        with pytest.raises(DiskError):
            train(config)
    before = read_records(folder / "attempts.jsonl")
    shutil.rmtree(folder)

    result = train(config)
    assert result.resumed_from == (13 if ended == "stopped" else 10)
    assert_equal_runs(tmp_path / "quiet", folder)
    assert read_records(folder / "samples.jsonl") == read_records(tmp_path / "quiet" / "samples.jsonl")
    assert read_records(folder / "attempts.jsonl")[: len(before)] == before
    assert [attempt.why for attempt in read_attempts(folder)] == [ended, "finished"]
    shutil.rmtree(folder)
    assert train(config).resumed_from == 20  # and what is finished stays so
    assert_equal_runs(tmp_path / "quiet", folder)
