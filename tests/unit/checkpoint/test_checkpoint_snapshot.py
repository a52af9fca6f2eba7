"""The copy of the training state that a thread writes while training goes on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from lmbatch.checkpoint import save_training_state, snapshot_bytes
from lmbatch.checkpoint.snapshot import HostBuffers, frozen
from lmbatch.checkpoint.state import TrainingState, write_state


class Tied(torch.nn.Module):
    """A tied weight, a buffer, and parameters of two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(50, 16)
        self.middle = torch.nn.Linear(16, 16)
        self.head = torch.nn.Linear(16, 50, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("scale", torch.ones(3))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(self.embedding(ids))) * self.scale.mean()


class Trained:
    """A model and its optimizer, to be trained on by a step."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.model = Tied()
        decayed = [self.model.embedding.weight, self.model.middle.weight]
        groups = [{"params": decayed}, {"params": [self.model.middle.bias], "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.1)
        self.step()

    def step(self) -> None:
        self.model(torch.randint(50, (4,))).square().mean().backward()
        self.optimizer.step()
        self.model.scale += 1
        self.optimizer.param_groups[0]["lr"] *= 0.9

    def state(self) -> TrainingState:
        return TrainingState.of(self.model, self.optimizer, extra={"sums": [torch.tensor(2.5)]})

    def saved(self, folder: Path) -> dict[str, bytes]:
        folder.mkdir()
        extra = {"sums": [torch.tensor(2.5)]}
        save_training_state(folder, model=self.model, optimizer=self.optimizer, extra=extra)
        return content(folder)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written_is_the_state_of_the_copy_whatever_training_does_meanwhile(tmp_path):
    trained = Trained()
    then = trained.saved(tmp_path / "then")
    copied = frozen(trained.state(), HostBuffers())
    trained.step()
    torch.rand(9)  # the generator goes on as well
    (tmp_path / "late").mkdir()
    write_state(tmp_path / "late", copied)
    assert content(tmp_path / "late") == then
    now = trained.saved(tmp_path / "now")
    assert all(now[name] != then[name] for name in ("model.safetensors", "optimizer.json", "optimizer.safetensors"))
    assert now["rng.safetensors"] != then["rng.safetensors"]


def test_the_buffers_are_kept_from_save_to_save_and_cost_what_the_plan_says():
    trained, buffers = Trained(), HostBuffers()

    def places() -> dict[str, int]:
        found = frozen(trained.state(), buffers)
        moments = {f"{index}/{key}": item for index, of in found.optimizer.state["state"].items()
                   for key, item in of.items()}  # fmt: skip
        return {name: item.fetch().data_ptr() for name, item in {**found.weights.tensors, **moments}.items()}

    first = places()
    held = buffers.bytes
    trained.step()
    assert places() == first
    assert buffers.bytes == held
    rng, small = torch.get_rng_state().nbytes, 3 * 4 + 4 + 3 * 4  # buffer, extra, one number of steps per parameter
    parameters = sum(parameter.numel() for parameter in trained.model.parameters())
    assert held == snapshot_bytes(parameters) + rng + small


def test_the_digests_of_the_files_are_those_of_their_bytes(tmp_path):
    found = write_state(tmp_path, frozen(Trained().state(), HostBuffers()))
    assert found.keys() == content(tmp_path).keys()
    for name, data in content(tmp_path).items():
        assert (found[name].size, found[name].sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_share_costs_its_part():
    assert snapshot_bytes(1000) == 12_000
    assert snapshot_bytes(1000, sharing=4) == 3000
    assert snapshot_bytes(1001, sharing=4) == 251 * 12
