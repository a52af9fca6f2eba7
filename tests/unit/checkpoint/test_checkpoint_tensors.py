"""safetensors files written tensor by tensor are those of the library, byte for byte."""

from __future__ import annotations

import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmbatch.checkpoint.tensors import Pending, StoredTensors, write_tensors
from lmbatch.errors import CheckpointError

TENSORS = {
    "b/字": torch.randn(3, 5), "a": torch.arange(7), "scalar": torch.tensor(3.0), "u": torch.arange(3).to(torch.uint8),
    "bf": torch.randn(4).bfloat16(), "h": torch.randn(2).half(), "flag": torch.tensor([True]),
    "d": torch.randn(2).double(), "i": torch.zeros(2, dtype=torch.int32), "s": torch.zeros(3, dtype=torch.int16),
    "c": torch.zeros(3, dtype=torch.int8), "none": torch.zeros(0, 4),
}  # fmt: skip


@pytest.mark.parametrize("metadata", [None, {"aliases": '{"x": "字"}'}])
def test_the_bytes_are_those_of_the_library(tmp_path, metadata):
    save_file(TENSORS, tmp_path / "library", metadata=metadata)
    write_tensors(tmp_path / "own", TENSORS, metadata)
    assert (tmp_path / "own").read_bytes() == (tmp_path / "library").read_bytes()


def test_one_tensor_at_a_time_is_fetched(tmp_path):
    alive, most = set(), []

    def fetch(number):
        tensor = torch.full((10,), float(number))
        alive.add(number)
        weakref.finalize(tensor, alive.discard, number)
        most.append(len(alive))
        return tensor

    pending = {f"t{n:02}": Pending(torch.float32, (10,), lambda n=n: fetch(n)) for n in range(12)}
    write_tensors(tmp_path / "file", pending, None)
    assert max(most) <= 2
    assert {name: float(tensor[0]) for name, tensor in load_file(tmp_path / "file").items()} == {
        f"t{n:02}": float(n) for n in range(12)
    }


def test_what_is_written_is_read_back_one_by_one(tmp_path):
    write_tensors(tmp_path / "file", TENSORS, None)
    stored = StoredTensors(tmp_path / "file")
    assert set(stored) == TENSORS.keys()
    for name, tensor in TENSORS.items():
        item = stored[name]
        assert (item.dtype, item.shape) == (tensor.dtype, tuple(tensor.shape))
        assert torch.equal(item.fetch(), tensor)
    with pytest.raises(KeyError):
        stored["missing"]


@pytest.mark.parametrize("came", [torch.zeros(3), torch.zeros(2).double()])
def test_a_tensor_that_is_not_as_announced_is_refused(tmp_path, came):
    with pytest.raises(CheckpointError, match="not as it was announced"):
        write_tensors(tmp_path / "file", {"x": Pending(torch.float32, (2,), lambda: came)}, None)


def test_a_dtype_without_a_name_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="x is torch.complex64"):
        write_tensors(tmp_path / "file", {"x": torch.zeros(2, dtype=torch.complex64)}, None)
