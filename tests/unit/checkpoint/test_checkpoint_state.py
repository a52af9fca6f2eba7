"""Training state: restored bit for bit, or refused by name."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from lmbatch.checkpoint import load_model_weights, load_training_state, save_training_state
from lmbatch.checkpoint.codec import decode, encode
from lmbatch.errors import CheckpointError

Parts = tuple[torch.nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]


def build(**changes: object) -> Parts:
    """A tiny GPT-2 with dropout, tied weights, two parameter groups and a schedule."""
    values = {"vocab_size": 50, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 0,
              "eos_token_id": 0, "resid_pdrop": 0.2, "embd_pdrop": 0.2, "attn_pdrop": 0.2}  # fmt: skip
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(**(values | changes)))
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3 / 3, betas=(0.9, 0.95))
    return model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step / 7))


def train(parts: Parts, steps: range) -> list[float]:
    """Batches depend on the step; noise comes from all three generators, dropout from torch's."""
    model, optimizer, schedule = parts
    losses = []
    for step in steps:
        ids = torch.from_numpy(np.random.default_rng(step).integers(0, 50, (4, 16)))
        ids[0, 0] = random.randrange(50)
        ids[0, 1] = int(np.random.randint(50))
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def weights(parts: Parts) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in parts[0].state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def save(folder: Path, parts: Parts, **more: object) -> Path:
    save_training_state(folder, model=parts[0], optimizer=parts[1], extra={"schedule": parts[2].state_dict()}, **more)
    return folder


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path):
    straight = build()
    seed_everything(5)
    expected = train(straight, range(20))

    first = build()
    seed_everything(5)
    losses = train(first, range(10))
    save(tmp_path, first)
    train(first, range(10, 13))  # work that a kill would have thrown away

    resumed = build(initializer_range=0.5)  # other weights, until they are loaded
    seed_everything(99)
    extra = load_training_state(tmp_path, model=resumed[0], optimizer=resumed[1])
    resumed[2].load_state_dict(extra["schedule"])
    losses += train(resumed, range(10, 20))

    assert losses == expected
    assert same(weights(resumed), weights(straight))
    assert resumed[1].state_dict()["param_groups"] == straight[1].state_dict()["param_groups"]


def test_only_safetensors_and_json_are_written(tmp_path):
    parts = build()
    train(parts, range(1))
    save(tmp_path, parts)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"model.safetensors", "optimizer.safetensors", "optimizer.json", "rng.safetensors", "rng.json",
                     "extra.json"}  # fmt: skip
    for path in tmp_path.glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))


def test_saving_changes_nothing_in_the_run(tmp_path):
    parts = build()
    seed_everything(5)
    train(parts, range(3))
    save(tmp_path, parts)
    with_save = train(parts, range(3, 6))
    parts = build()
    seed_everything(5)
    train(parts, range(3))
    assert train(parts, range(3, 6)) == with_save


def test_before_the_first_step_too(tmp_path):
    parts = build()
    before = weights(parts)
    save(tmp_path, parts)
    other = build(initializer_range=0.5)
    load_training_state(tmp_path, model=other[0], optimizer=other[1])
    assert same(weights(other), before)


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    parts = build()
    save(tmp_path, parts)
    other = build()
    load_model_weights(tmp_path, other[0])
    assert other[0].lm_head.weight is other[0].transformer.wte.weight
    assert (tmp_path / "model.safetensors").stat().st_size < 4 * (
        sum(parameter.numel() for parameter in parts[0].parameters()) + 50 * 16
    )


def test_another_tying_is_refused(tmp_path):
    save(tmp_path, build())
    with pytest.raises(CheckpointError, match=r"lm_head.weight is tied to transformer.wte.weight in the checkpoint"):
        load_model_weights(tmp_path, build(tie_word_embeddings=False)[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_layer": 3}, "transformer.h.2.ln_1.weight is not in the checkpoint"),
        ({"n_layer": 1}, "transformer.h.1.ln_1.weight is not in the model"),
        ({"vocab_size": 60}, r"wte.weight is \(50, 16\) float32 in the checkpoint, \(60, 16\) float32 in the model"),
        ({"dtype": torch.bfloat16}, r"wte.weight is \(50, 16\) float32 in the checkpoint, \(50, 16\) bfloat16"),
    ],
)
def test_another_model_is_refused_by_name_and_untouched(tmp_path, changes, said):
    save(tmp_path, build())
    dtype = changes.pop("dtype", torch.float32)
    other = build(initializer_range=0.5, **changes)
    other[0].to(dtype)
    before = weights(other)
    with pytest.raises(CheckpointError, match=said):
        load_training_state(tmp_path, model=other[0], optimizer=other[1])
    assert same(weights(other), before)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (lambda named: [list(named.values())], "2 parameter groups in the checkpoint, 1 in the optimizer"),
        (lambda named: [[p for p in named.values() if p.ndim > 1 and p.shape[0] != 50],
                        [p for p in named.values() if p.ndim <= 1]],
         r"wte.weight in group 0 is \(50, 16\) in the checkpoint, missing here"),
        (lambda named: [[p for p in reversed(named.values()) if p.ndim > 1],
                        [p for p in named.values() if p.ndim <= 1]], "another order"),
    ],
)  # fmt: skip
def test_another_optimizer_is_refused_and_nothing_is_touched(tmp_path, groups, said):
    parts = build()
    train(parts, range(1))
    save(tmp_path, parts)
    other = build(initializer_range=0.5)[0]
    optimizer = torch.optim.AdamW([{"params": group} for group in groups(dict(other.named_parameters()))])
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=said):
        load_training_state(tmp_path, model=other, optimizer=optimizer)
    assert same(before, dict(other.state_dict()))


class FakeScaler:
    """torch's gradient scaler needs a GPU to hold a scale; its state is a dict of plain numbers."""

    def __init__(self, scale: float) -> None:
        self.state = {"scale": scale, "growth_factor": 2.0, "_growth_tracker": 3}

    def state_dict(self) -> dict[str, float]:
        return dict(self.state)

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.state = state


def test_the_gradient_scaler_is_restored(tmp_path):
    parts = build()
    save(tmp_path, parts, scaler=FakeScaler(65536.0 * 3))
    scaler = FakeScaler(1.0)
    load_training_state(tmp_path, model=parts[0], optimizer=parts[1], scaler=scaler)
    assert scaler.state == FakeScaler(65536.0 * 3).state


def test_another_precision_starts_a_fresh_scaler_and_says_so(tmp_path, caplog):
    parts = build()
    save(tmp_path, parts)
    scaler = FakeScaler(1.0)
    load_training_state(tmp_path, model=parts[0], optimizer=parts[1], scaler=scaler)
    assert scaler.state == FakeScaler(1.0).state
    assert "scaler starts afresh" in caplog.text


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.json", "rng.json", "extra.json"])
def test_an_unreadable_file_is_named(tmp_path, name):
    parts = build()
    save(tmp_path, parts)
    (tmp_path / name).write_bytes(b"{")
    with pytest.raises(CheckpointError, match=name):
        load_training_state(tmp_path, model=parts[0], optimizer=parts[1])
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_training_state(tmp_path, model=parts[0], optimizer=parts[1])


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(plain)
def test_any_plain_value_survives_json(value):
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(encode(value, "x", tensors), allow_nan=False)
    back = decode(json.loads(text), tensors)
    assert back == value
    assert repr(back) == repr(value)  # tells 1 from 1.0 and True, a tuple from a list, 0.0 from -0.0


def test_nan_and_tensors_survive():
    tensors: dict[str, torch.Tensor] = {}
    value = {"nan": math.nan, "deep": [{"t": torch.arange(6).view(2, 3).t()}], "same": torch.ones(2)}
    value["twice"] = value["same"]
    back = decode(json.loads(json.dumps(encode(value, "x", tensors))), tensors)
    assert math.isnan(back["nan"])
    assert torch.equal(back["deep"][0]["t"], value["deep"][0]["t"])
    assert tensors["x/same"].data_ptr() != tensors["x/twice"].data_ptr()


def test_paths_that_look_alike_keep_their_tensors():
    tensors: dict[str, torch.Tensor] = {}
    value = {"a/b": torch.tensor(1), "a": {"b": torch.tensor(2), 1: torch.tensor(3), "1": torch.tensor(4)}}
    back = decode(encode(value, "x", tensors), tensors)
    assert [back["a/b"].item(), *(tensor.item() for tensor in back["a"].values())] == [1, 2, 3, 4]


@pytest.mark.parametrize("value", [object(), {1, 2}, np.int64(3), b"bytes"])
def test_a_value_that_cannot_be_saved_is_named(value):
    with pytest.raises(CheckpointError, match=r"x/a/0: a .* cannot be saved"):
        encode({"a": [value]}, "x", {})
