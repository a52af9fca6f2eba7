"""All that a training process carries from one step to the next, as safetensors and JSON.

::

    model.safetensors                     weights, tied ones once
    optimizer.safetensors, optimizer.json moments by parameter; groups, scalars and parameter names
    rng.safetensors, rng.json             Python, numpy, torch on the CPU and on this GPU
    scaler.safetensors, scaler.json       gradient scaler (fp16 only)
    extra.safetensors, extra.json         whatever the training loop adds

A run that is loaded from these goes on bit for bit as if it had never stopped. The layout knows nothing of processes:
everything stands under its parameter's name, whole, so it is the same however many processes shared the state out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lmbatch.checkpoint.codec import Tensors, decode, encode
from lmbatch.checkpoint.files import Digest, Digests, HashedFile
from lmbatch.checkpoint.rng import rng_state, set_rng_state
from lmbatch.checkpoint.tensors import Pending, StoredTensors, write_tensors
from lmbatch.checkpoint.weights import Weights, put_weights, read_weights, save_weights
from lmbatch.errors import CheckpointError

log = logging.getLogger(__name__)
_KERNELS = ("fused", "foreach")  # settings of torch's optimizers that decide how, not what


class Optimizer(Protocol):
    """torch's optimizers, and Accelerate's wrapper around one."""

    param_groups: list[dict[str, Any]]

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class Scaler(Protocol):
    """torch's gradient scaler."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """``parameters``: name and shape of every parameter, group by group; ``state``: as torch's ``state_dict``, with
    tensors or pending ones."""

    parameters: list[list[list[Any]]]
    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What a checkpoint is made of. Tensors may be pending, and then lie anywhere; ``extra`` is the training loop's."""

    weights: Weights
    optimizer: OptimizerState
    rng: dict[str, Any]
    scaler: dict[str, Any] | None
    extra: dict[str, Any]

    @classmethod
    def of(
        cls, model: torch.nn.Module, optimizer: Optimizer, *, scaler: Scaler | None = None, extra: dict[str, Any]
    ) -> Self:
        """That of a bare module and an optimizer which are whole on this process. The tensors are the live ones."""
        found = OptimizerState(parameter_names(model, optimizer), optimizer.state_dict())
        return cls(Weights.of(model), found, rng_state(), None if scaler is None else scaler.state_dict(), extra)


def save_training_state(
    folder: Path, *, model: torch.nn.Module, optimizer: Optimizer, scaler: Scaler | None = None, extra: dict[str, Any]
) -> Digests:
    """Write everything into ``folder``. ``model`` is the bare module, not a data-parallel wrapper.

    ``extra`` may hold plain values, tuples and tensors. Raises CheckpointError for a value that cannot be saved.
    """
    return write_state(folder, TrainingState.of(model, optimizer, scaler=scaler, extra=extra))


def write_state(folder: Path, state: TrainingState) -> Digests:
    """The same, from state that may lie anywhere: a pending tensor is fetched when its turn comes."""
    written = {
        **save_weights(folder, state.weights),
        **_write(folder, "optimizer", {"parameters": state.optimizer.parameters, "state": state.optimizer.state}),
        **_write(folder, "rng", state.rng),
    }
    if state.scaler is not None:
        written |= _write(folder, "scaler", state.scaler)
    return written | _write(folder, "extra", state.extra)


def load_training_state(
    folder: Path, *, model: torch.nn.Module, optimizer: Optimizer, scaler: Scaler | None = None
) -> dict[str, Any]:
    """Restore everything, and give ``extra`` back.

    All is read and checked before anything is changed. Raises CheckpointError naming the parameters that do not fit,
    with both shapes. The random generators are restored last, so that loading itself costs them nothing.
    """
    weights = read_weights(folder, model)
    optimizer_state = _checked_optimizer(folder, model, optimizer)
    rng, extra = _read(folder, "rng"), _read(folder, "extra")
    scaler_state = _scaler_state(folder, scaler)
    put_weights(model, weights)
    optimizer.load_state_dict(_computed_as(optimizer, optimizer_state))
    if scaler is not None and scaler_state is not None:
        scaler.load_state_dict(scaler_state)
    _set_rng(folder, rng)
    assert isinstance(extra, dict)
    return extra


def load_model_weights(folder: Path, model: torch.nn.Module) -> None:
    """Put a checkpoint's weights, and nothing else, into ``model``. Raises CheckpointError as above."""
    put_weights(model, read_weights(folder, model))


def read_optimizer_state(folder: Path, model: torch.nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """The optimizer's ``state_dict`` with pending tensors, after the same checks. Raises CheckpointError."""
    return _checked_optimizer(folder, model, optimizer, pending=True)


def load_rng(folder: Path) -> None:
    """Restore the random generators and nothing else. Raises CheckpointError."""
    _set_rng(folder, _read(folder, "rng"))


def _set_rng(folder: Path, rng: dict[str, Any]) -> None:
    try:
        set_rng_state(rng)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder / 'rng.json'}: no state of the random generators: {error!r}") from error


def _write(folder: Path, name: str, value: Any) -> dict[str, Digest]:
    tensors: Tensors = {}
    plain = encode(value, name, tensors)
    text = json.dumps(plain, ensure_ascii=False, allow_nan=False, indent=1)
    with HashedFile(folder / f"{name}.json") as file:
        file.write(f"{text}\n".encode())
        written = {f"{name}.json": file.close()}
    if tensors:
        stored = f"{name}.safetensors"
        written[stored] = write_tensors(folder / stored, tensors, None)
    return written


def _read(folder: Path, name: str, *, pending: bool = False) -> Any:
    path = folder / f"{name}.json"
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        stored = folder / f"{name}.safetensors"
        tensors: Mapping[str, torch.Tensor | Pending] = {}
        if stored.exists():
            tensors = StoredTensors(stored) if pending else load_file(stored)
        return decode(plain, tensors)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as training state: {error!r}") from error


def parameter_names(model: torch.nn.Module, optimizer: Optimizer) -> list[list[list[Any]]]:
    """For every parameter group, the name and shape of its parameters, in the optimizer's own order."""
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return [
        [[known.get(id(parameter), "(not in the model)"), list(parameter.shape)] for parameter in group["params"]]
        for group in optimizer.param_groups
    ]


def _checked_optimizer(
    folder: Path, model: torch.nn.Module, optimizer: Optimizer, *, pending: bool = False
) -> dict[str, Any]:
    stored = _read(folder, "optimizer", pending=pending)
    path = folder / "optimizer.json"
    try:
        groups, state = stored["parameters"], stored["state"]
        problems = list(_group_problems(groups, parameter_names(model, optimizer)))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: is no optimizer state: {error!r}") from error
    if problems:
        raise CheckpointError(
            f"{path}: does not fit the optimizer: " + "; ".join(problems),
            remedy="resume with the model and optimizer config that the checkpoint was saved with",
        )
    assert isinstance(state, dict)
    return state


def _computed_as(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """``state`` with the kernels of ``optimizer`` itself: they are no part of a run, and where steps are counted (on
    the device or not) depends on them."""
    here = [{key: group[key] for key in _KERNELS if key in group} for group in optimizer.param_groups]
    groups = [{**group, **own} for group, own in zip(state["param_groups"], here, strict=True)]
    return {**state, "param_groups": groups}


def _group_problems(old: list[list[list[Any]]], new: list[list[list[Any]]]) -> Iterable[str]:
    """Optimizer state goes by position, so names are compared position by position, shapes too."""
    if len(old) != len(new):
        yield f"{len(old)} parameter groups in the checkpoint, {len(new)} in the optimizer"
        return
    for number, (before, now) in enumerate(zip(old, new, strict=True)):
        shapes_before, shapes_now = ({name: tuple(shape) for name, shape in group} for group in (before, now))
        for name in shapes_before.keys() | shapes_now.keys():
            left, right = shapes_before.get(name), shapes_now.get(name)
            if left != right:
                yield f"{name} in group {number} is {left or 'missing'} in the checkpoint, {right or 'missing'} here"
        if shapes_before == shapes_now and [item[0] for item in before] != [item[0] for item in now]:
            yield f"the parameters of group {number} stand in another order"


def _scaler_state(folder: Path, scaler: Scaler | None) -> dict[str, Any] | None:
    saved = (folder / "scaler.json").exists()
    if saved != (scaler is not None):
        log.warning("the precision is another than the checkpoint's: the gradient scaler starts afresh")
    if not saved or scaler is None:
        return None
    state = _read(folder, "scaler")
    assert isinstance(state, dict)
    return state or None
