"""Which checkpoints a run keeps, by its own evaluations."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmbatch.checkpoint.pins import pin
from lmbatch.store import LocalStore, open_store
from lmbatch.train import loop, train
from lmbatch.train.metrics import read_metrics, validation_losses
from support.tiny_corpus import write_corpus
from support.tiny_run import saved_steps, tiny_config


@pytest.fixture
def worse_and_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The later an evaluation, the higher its loss."""
    original, number = loop.evaluate, [0]

    def evaluate(*arguments, **options):
        number[0] += 1
        return {**original(*arguments, **options), "loss": 10.0 + number[0]}

    monkeypatch.setattr(loop, "evaluate", evaluate)


def test_the_best_and_the_pinned_stay_over_a_resume(tmp_path: Path, worse_and_worse) -> None:
    corpus, mirror = write_corpus(tmp_path / "store"), tmp_path / "mirror"
    save = {"every": 5, "keep_best": 1, "store": str(mirror)}
    settings = {"evaluate": {"every": 5}, "save": save, "schedule": {"name": "constant"}}
    train(tiny_config(corpus, tmp_path, **settings, steps=15))
    assert saved_steps(tmp_path / "tiny") == [5, 10, 15]
    pin(LocalStore(tmp_path / "tiny"), 10)
    train(tiny_config(corpus, tmp_path, **settings, steps=30, run={"accept_changes": True}))
    losses = validation_losses(read_metrics(tmp_path / "tiny"))
    assert min(losses, key=losses.__getitem__) == 5
    assert saved_steps(tmp_path / "tiny") == [5, 10, 25, 30]
    # A save that comes while another is being copied may not be copied itself: the first and the last always are.
    copied = {info.key.split("/")[1][-2:] for info in open_store(str(mirror / "tiny")).list("checkpoints/")}
    assert {"05", "30"} <= copied
    assert "20" not in copied
