"""The safetensors format, written one tensor at a time.

The library's own ``save_file`` wants all tensors in memory at once, which a state that is spread over many processes
never is. The bytes are the same: https://github.com/huggingface/safetensors#format (8 bytes of header length, little
endian; a JSON header of dtype, shape and offsets; the tensors in order of falling dtype, then name).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open

from lmbatch.checkpoint.files import Digest, HashedFile
from lmbatch.errors import CheckpointError

# In the library's own order, in which a tensor never stands on an odd boundary of its dtype.
_DTYPES: dict[torch.dtype, str] = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
_RANK = {dtype: number for number, dtype in enumerate(_DTYPES)}


@dataclass(frozen=True, slots=True)
class Pending:
    """A tensor that is fetched only when its turn comes, so that never all of them are in memory at once."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    fetch: Callable[[], torch.Tensor]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Self:
        """A tensor that is here, on whatever device."""
        return cls(tensor.dtype, tuple(tensor.shape), lambda: tensor)

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor | Pending], metadata: dict[str, str] | None) -> Digest:
    """Write a safetensors file; each tensor is fetched, written, hashed and let go, in the order of the file.

    Raises CheckpointError for a dtype that the format does not know, or a tensor that is not what was announced.
    """
    pending = {name: item if isinstance(item, Pending) else Pending.of(item) for name, item in tensors.items()}
    for name, item in pending.items():
        if item.dtype not in _DTYPES:
            raise CheckpointError(f"{path}: {name} is {item.dtype}, which cannot be saved")
    order = sorted(pending, key=lambda name: (-_RANK[pending[name].dtype], name))
    with HashedFile(path) as file:
        file.write(_header({name: pending[name] for name in order}, metadata))
        for name in order:
            file.write(_payload(path, name, pending[name]).data)
        return file.close()


def _header(tensors: Mapping[str, Pending], metadata: dict[str, str] | None) -> bytes:
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name, item in tensors.items():
        start, end = end, end + item.bytes
        header[name] = {"dtype": _DTYPES[item.dtype], "shape": list(item.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _payload(path: Path, name: str, item: Pending) -> npt.NDArray[np.uint8]:
    tensor = item.fetch().detach()
    if tensor.dtype != item.dtype or tuple(tensor.shape) != item.shape:
        raise CheckpointError(f"{path}: {name} came as {tensor.dtype} {tuple(tensor.shape)}, not as it was announced")
    payload: npt.NDArray[np.uint8] = tensor.to("cpu").contiguous().flatten().view(torch.uint8).numpy()
    return payload


class StoredTensors(Mapping[str, Pending]):
    """The tensors of a safetensors file, read one by one. Raises what ``safe_open`` raises."""

    def __init__(self, path: Path) -> None:
        opened: Any = safe_open(path, framework="pt")
        self._file = opened
        self._names: list[str] = list(opened.keys())

    def __getitem__(self, name: str) -> Pending:
        if name not in self._names:
            raise KeyError(name)
        piece = self._file.get_slice(name)
        known = {text: dtype for dtype, text in _DTYPES.items()}
        return Pending(known[piece.get_dtype()], tuple(piece.get_shape()), lambda: self._file.get_tensor(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
