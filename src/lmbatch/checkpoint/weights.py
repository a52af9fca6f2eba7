"""A model's parameters and buffers as one safetensors file, tied weights included."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open

from lmbatch.checkpoint.files import Digests
from lmbatch.checkpoint.tensors import Pending, write_tensors
from lmbatch.errors import CheckpointError

FILE = "model.safetensors"
_ALIASES = "aliases"


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's parameters and buffers by name, wherever they lie; ``aliases`` are the later names of tied ones."""

    tensors: Mapping[str, Pending]
    aliases: Mapping[str, str]

    @classmethod
    def of(cls, model: torch.nn.Module) -> Self:
        """Those of a model that is whole on this process."""
        unique, aliases = _split_aliases(model)
        return cls({name: Pending.of(tensor) for name, tensor in unique.items()}, aliases)


def save_weights(folder: Path, weights: Weights) -> Digests:
    """Write ``model.safetensors``. A tied weight is stored once; the metadata says which names share it."""
    metadata = {_ALIASES: json.dumps(dict(weights.aliases), sort_keys=True)}
    return {FILE: write_tensors(folder / FILE, weights.tensors, metadata)}


def read_weights(folder: Path, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The stored tensors, after a check that each has its place in ``model``; the model is not touched yet.

    Raises CheckpointError naming every parameter that is missing, left over, or of another shape, dtype or tying.
    """
    path = folder / FILE
    try:
        with safe_open(path, framework="pt") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
            stored_aliases = json.loads((file.metadata() or {}).get(_ALIASES, "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    wanted, aliases = _split_aliases(model)
    problems = _alias_problems(stored_aliases, aliases) or _tensor_problems(stored, wanted)
    if problems:
        raise CheckpointError(
            f"{path}: does not fit the model: " + "; ".join(problems),
            remedy="resume with the model config that the checkpoint was saved with, or start a new run",
        )
    return stored


def put_weights(model: torch.nn.Module, stored: Mapping[str, torch.Tensor]) -> None:
    """Copy checked tensors into the model's own; tied weights stay tied."""
    unique, _ = _split_aliases(model)
    with torch.no_grad():
        for name, tensor in unique.items():
            tensor.copy_(stored[name])


def describe(tensor: torch.Tensor) -> str:
    """``(4, 8) float32``."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _split_aliases(model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """State by its first name, and every later name of the same memory → that first name."""
    unique: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    first_names: dict[tuple[object, ...], str] = {}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, torch.Tensor):
            raise CheckpointError(f"{name}: extra state of a module that is no tensor cannot be saved")
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        first = first_names.setdefault(place, name) if tensor.numel() else name
        if first == name:
            unique[name] = tensor
        else:
            aliases[name] = first
    return unique, aliases


def _alias_problems(stored: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    return [
        f"{name} is tied to {stored.get(name) or 'nothing'} in the checkpoint, to {wanted.get(name) or 'nothing'} "
        "in the model"
        for name in sorted(stored.keys() | wanted.keys())
        if stored.get(name) != wanted.get(name)
    ]


def _tensor_problems(stored: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> list[str]:
    problems = [f"{name} is not in the checkpoint" for name in wanted if name not in stored]
    problems += [f"{name} is not in the model" for name in stored if name not in wanted]
    for name, tensor in wanted.items():
        old = stored.get(name)
        if old is not None and (old.shape != tensor.shape or old.dtype != tensor.dtype):
            problems.append(f"{name} is {describe(old)} in the checkpoint, {describe(tensor)} in the model")
    return problems
