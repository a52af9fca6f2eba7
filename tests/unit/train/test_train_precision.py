"""Precision: bf16 trains on a CPU with weights in fp32; fp16 wants a GPU and says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from safetensors import safe_open

from lmbatch.config import TrainConfig
from lmbatch.errors import LaunchError, ResumeError
from lmbatch.train import TrainResult
from lmbatch.train import train as train_here
from lmbatch.train.metrics import read_metrics, training_rows
from support.tiny_corpus import write_corpus
from support.tiny_run import newest_payload, tiny_config


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_corpus(tmp_path_factory.mktemp("precision"))


def train(config: TrainConfig) -> TrainResult:
    """Accelerate keeps its first precision for the life of a process; each run here is as if in its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        return train_here(config)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_bf16_trains_with_fp32_weights(store: str, tmp_path: Path) -> None:
    whole = train(tiny_config(store, tmp_path, run={"name": "whole"}, precision="bf16", steps=10))
    train(tiny_config(store, tmp_path, run={"name": "fp32"}, precision="fp32", steps=10))
    rows = {name: training_rows(read_metrics(tmp_path / name)) for name in ("whole", "fp32")}
    assert rows["whole"][-1]["loss"] < rows["whole"][0]["loss"]
    assert rows["whole"][0]["loss"] != rows["fp32"][0]["loss"]  # it really computes in another precision
    assert rows["whole"][0]["loss"] == pytest.approx(rows["fp32"][0]["loss"], rel=1e-2)
    assert newest_payload(tmp_path / "whole").keys() == newest_payload(tmp_path / "fp32").keys()
    weights = next((whole.run_dir / "checkpoints").rglob("model.safetensors"))
    with safe_open(weights, "pt") as tensors:
        assert {str(tensors.get_tensor(name).dtype) for name in tensors.keys()} == {"torch.float32"}  # noqa: SIM118


def test_another_precision_is_another_run(store: str, tmp_path: Path) -> None:
    train(tiny_config(store, tmp_path, precision="fp32", steps=5))
    with pytest.raises(ResumeError, match=r"\(precision\)|precision"):
        train(tiny_config(store, tmp_path, precision="bf16", steps=5))


def test_fp16_on_a_cpu_is_refused_with_the_remedy(store: str, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="fp16") as caught:
        train(tiny_config(store, tmp_path, precision="fp16", steps=5))
    assert "fp32" in str(caught.value.remedy)
