"""State as JSON and tensors, and back, bit for bit. No pickle: a checkpoint can be read without running its code.

A value of None, bool, int, finite float, str, list or dict with string keys stands in the JSON as it is (Python writes
the shortest decimal that reads back to the same float). Anything else is a dict with one key that starts with ``$``::

    {"$tensor": "state/0/exp_avg"}      a tensor of that name in the safetensors file
    {"$tuple": [0.9, 0.95]}             a tuple
    {"$float": "inf"}                   an infinite or undefined float
    {"$items": [[0, …], [1, …]]}        a dict whose keys are not plain strings
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from lmbatch.checkpoint.tensors import Pending
from lmbatch.errors import CheckpointError

Tensors = dict[str, torch.Tensor | Pending]


def encode(value: Any, path: str, tensors: Tensors) -> Any:
    """``value`` as plain JSON; its tensors go into ``tensors`` under names that begin with ``path``.

    Tensors are copied to the CPU, pending ones stay so. Raises CheckpointError naming the path of a value of any other
    type.
    """
    if value is None or isinstance(value, (bool, str)) or type(value) is int:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
    if isinstance(value, (torch.Tensor, Pending)):
        while path in tensors:  # the keys 1 and "1", or "a/b" and a then b, make the same path
            path += "+"
        # A copy of its own: what is encoded may not change any more.
        tensors[path] = value if isinstance(value, Pending) else value.detach().to("cpu", copy=True).contiguous()
        return {"$tensor": path}
    if isinstance(value, dict):
        return _encode_dict(value, path, tensors)
    if isinstance(value, (list, tuple)):
        items = [encode(item, f"{path}/{number}", tensors) for number, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    raise CheckpointError(f"{path}: a {type(value).__name__} cannot be saved; use plain values and tensors")


def _encode_dict(value: dict[Any, Any], path: str, tensors: Tensors) -> Any:
    items = [(key, encode(item, f"{path}/{key}", tensors)) for key, item in value.items()]
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return dict(items)
    return {"$items": [[encode(key, f"{path} (a key)", tensors), item] for key, item in items]}


def decode(value: Any, tensors: Mapping[str, torch.Tensor | Pending]) -> Any:
    """The inverse of :func:`encode`, for pending tensors too. Raises KeyError or ValueError for what it never wrote."""
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (key, inner), *_ = value.items()
        if key.startswith("$"):
            return _decode_marked(key, inner, tensors)
    return {key: decode(item, tensors) for key, item in value.items()}


def _decode_marked(mark: str, inner: Any, tensors: Mapping[str, torch.Tensor | Pending]) -> Any:
    if mark == "$tensor":
        found = tensors[inner]
        # safetensors maps the file; state must not depend on a file that retention will delete.
        return found if isinstance(found, Pending) else found.clone()
    if mark == "$tuple":
        return tuple(decode(item, tensors) for item in inner)
    if mark == "$float":
        return float(inner)
    if mark == "$items":
        return {decode(key, tensors): decode(item, tensors) for key, item in inner}
    raise ValueError(f"unknown mark {mark}")
