"""A checkpoint whose loader stands elsewhere than it says itself is not gone on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmbatch.checkpoint import CheckpointReceipt, Checkpoints
from lmbatch.errors import ResumeError
from lmbatch.store import LocalStore
from lmbatch.train import train
from support.tiny_corpus import write_corpus
from support.tiny_run import tiny_config


@pytest.mark.parametrize(
    "change", [{"samples_consumed": 39}, {"seed": 2}, {"manifest_digest": "sha256:other"}, {"epoch": 1}]
)
def test_a_contradiction_stops_the_resume(tmp_path: Path, change: dict[str, object]) -> None:
    corpus = write_corpus(tmp_path / "store")
    quick = {"steps": 5, "evaluate": {"batches": 0}}
    train(tiny_config(corpus, tmp_path, **quick))
    found, _ = Checkpoints(LocalStore(tmp_path / "tiny")).newest_valid()
    assert found is not None
    assert found.facts.loader["samples_consumed"] == 40
    path = found.folder.parent / "receipt.json"
    receipt = CheckpointReceipt.model_validate_json(path.read_bytes())
    facts = receipt.facts.model_copy(update={"loader": receipt.facts.loader | change})
    path.write_bytes(receipt.model_copy(update={"facts": facts}).sealed().to_json())
    with pytest.raises(ResumeError, match="loader"):
        train(tiny_config(corpus, tmp_path, **quick))
