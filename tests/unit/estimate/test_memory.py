"""The memory of a process: against published figures, against what torch holds, and how it moves."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed._tools.mem_tracker import MemTracker

from lmbatch.config import EngineConfig, ModelConfig
from lmbatch.estimate.advice import changes
from lmbatch.estimate.memory import Setting, device_memory, host_memory, largest_micro
from lmbatch.estimate.shape import ModelShape, known_shape
from lmbatch.model import Targets, build_model, causal_loss, loss_head, require_loss_head


def shape(kind: str = "gpt2", vocabulary: int = 50257, sequence: int = 1024, **settings: Any) -> ModelShape:
    found = known_shape(kind, settings, vocabulary=vocabulary, sequence=sequence)
    assert found is not None
    return found


def zero(stage: int, **more: Any) -> EngineConfig:
    return EngineConfig(name="deepspeed", zero_stage=stage, **more)


def test_sixteen_bytes_for_each_parameter() -> None:
    """ZeRO (arXiv:1910.02054), section 3.1: mixed-precision Adam takes 16 bytes; a 1.5 B GPT-2 24 GB at least."""
    big = shape(n_embd=1600, n_layer=48, n_head=25)
    memory = device_memory(big, Setting(sequence=1024, micro=1, compute=2))
    assert memory.weights + memory.gradients + memory.optimizer == 16 * big.parameters
    assert memory.held > 24e9


@pytest.mark.parametrize(("stage", "bytes_each"), [(1, 8 + 16 / 64), (2, 4 + 16 / 64), (3, 20 / 64)])
def test_what_zero_shares_out_over_64(stage: int, bytes_each: float) -> None:
    """The paper's figure 1, with weights and gradients in float32 and a float32 slice beside the weights."""
    big = shape(n_embd=1600, n_layer=48, n_head=25)
    memory = device_memory(big, Setting(sequence=1024, micro=1, world=64, compute=2, engine=zero(stage)))
    held = memory.weights + memory.gradients + memory.optimizer
    assert held == pytest.approx(bytes_each * big.parameters, rel=1e-6)


def test_activations_by_hand() -> None:
    """One block of GPT-2 in float32 without dropout, 2 × 8 tokens, 4 wide: 112 bytes for each number of the width,
    16 for the means of the norms, 4 for each head, and the last norm."""
    tiny = shape(vocabulary=10, sequence=8, n_embd=4, n_layer=1, n_head=2, resid_pdrop=0.0, attn_pdrop=0.0)
    memory = device_memory(tiny, Setting(sequence=8, micro=2, on_gpu=False))
    assert memory.activations == 16 * (4 * 112 + 16 + 8) + 16 * (4 * 8 + 8)
    assert memory.logits == 16 * 10 * 12


def test_checkpointing_keeps_one_block_and_the_inputs_of_all() -> None:
    stock = shape()
    usual = Setting(sequence=1024, micro=8, compute=2)
    less = device_memory(stock, replace(usual, checkpointing=True)).activations
    whole = device_memory(stock, usual).activations
    assert less < whole / 4
    assert less > 12 * 8 * 1024 * 768 * 4


def test_loss_in_chunks_bounds_the_logits() -> None:
    stock = shape()
    usual = Setting(sequence=1024, micro=8, compute=2)
    assert device_memory(stock, usual).logits == 8 * 1024 * 50257 * 12
    # A chunk's logits, log-probabilities and gradient; the projection's gradient, and a product on its way into it.
    assert device_memory(stock, replace(usual, chunk=512)).logits == 512 * 50257 * 10 + 50257 * 768 * 6
    assert device_memory(stock, replace(usual, masked=0.15)).logits == int(0.15 * 8 * 1024) * 50257 * 12


settings = st.builds(
    Setting,
    sequence=st.sampled_from([64, 512, 1024]),
    micro=st.integers(1, 32),
    world=st.sampled_from([1, 2, 3, 8, 64]),
    compute=st.sampled_from([2, 4]),
    on_gpu=st.booleans(),
    engine=st.one_of(
        st.just(EngineConfig()),
        st.builds(zero, st.integers(0, 3)),
        st.builds(zero, st.integers(1, 3), offload_optimizer=st.just("cpu")),
    ),
    checkpointing=st.booleans(),
    chunk=st.sampled_from([0, 256]),
    fused=st.booleans(),
    eager=st.booleans(),
)
shapes = st.sampled_from(
    [
        shape(),
        shape("qwen2", 151646, hidden_size=512, num_hidden_layers=12, num_attention_heads=8, num_key_value_heads=2),
        shape("bloom", hidden_size=1024, n_layer=24, n_head=16),
        shape("roberta", 52000, 512),
    ]
)


@given(shapes, settings.filter(lambda setting: setting.world > 1), st.integers(2, 4))
def test_more_processes_never_take_more_of_each(model: ModelShape, setting: Setting, times: int) -> None:
    more = replace(setting, world=setting.world * times)
    assert device_memory(model, more).total <= device_memory(model, setting).total


@given(shapes, settings, st.integers(1, 8))
def test_more_samples_never_take_less(model: ModelShape, setting: Setting, more: int) -> None:
    bigger = device_memory(model, replace(setting, micro=setting.micro + more))
    assert bigger.total >= device_memory(model, setting).total
    assert bigger.activations > device_memory(model, setting).activations


@given(shapes, settings)
def test_what_saves_memory_does(model: ModelShape, setting: Setting) -> None:
    total = device_memory(model, setting).total
    for change in ({"checkpointing": True}, {"fused": True}, *([{"eager": False}] if setting.on_gpu else [])):
        assert device_memory(model, replace(setting, **change)).total <= total


@given(shapes, settings, st.sampled_from([8, 24, 80]))
def test_the_largest_micro_batch_fits_and_the_next_does_not(model: ModelShape, setting: Setting, room: int) -> None:
    room, batch = room * 2**30, 192
    micro = largest_micro(model, setting, room, batch=batch)
    divisors = [n for n in range(1, batch + 1) if batch % (n * setting.world) == 0]
    fits = [n for n in divisors if device_memory(model, replace(setting, micro=n)).total <= room]
    assert micro == max(fits, default=0)


def test_what_to_change_is_the_cheapest_that_fits() -> None:
    big = shape(n_embd=1600, n_layer=48, n_head=25)
    alone = Setting(sequence=1024, micro=8, compute=2)
    keys = [change.keys for change in changes(big, alone, 24 * 2**30, batch=512)]
    # 16 bytes for each parameter do not fit at all: only the optimizer's place on the host helps one GPU.
    assert len(keys) == 1
    assert keys[0][-1].endswith("engine.offload_optimizer=cpu")
    eight = changes(big, replace(alone, world=8), 24 * 2**30, batch=512)
    assert any("engine.zero_stage=2" in key for key in eight[0].keys)
    small = changes(shape(), replace(alone, micro=64), 24 * 2**30, batch=512)
    assert small[0].keys == ("batch.micro=8",)
    assert all(device_memory(shape(), change.setting).total == change.total <= 24 * 2**30 for change in small)


def test_nothing_helps_a_model_that_is_too_big() -> None:
    huge = shape("llama", 32000, hidden_size=8192, num_hidden_layers=80, num_attention_heads=64)
    assert changes(huge, Setting(sequence=4096, micro=1, compute=2), 24 * 2**30, batch=8) == ()


def test_the_host_holds_a_copy_for_the_save() -> None:
    stock = shape()
    two = Setting(sequence=1024, micro=1, world=16)
    found = host_memory(stock, two, asynchronous=True, processes_per_node=8)
    assert found["copy for the save"] == 12 * stock.parameters
    shared = replace(two, engine=zero(2, offload_optimizer="cpu"))
    found = host_memory(stock, shared, asynchronous=True, processes_per_node=8)
    assert found["copy for the save"] == 6 * stock.parameters
    assert found["optimizer on the host"] == 8 * stock.parameters


def peak_of_tensors(kind: str, settings: dict[str, Any], setting: Setting) -> int:
    """Bytes of all tensors at the peak of a real second step on the CPU, counted by torch."""
    model = build_model(
        ModelConfig(type=kind, config=settings), vocab_size=2000, sequence_length=setting.sequence, eod_id=0, seed=0
    )
    model.set_attn_implementation("eager" if setting.eager or kind == "bloom" else "sdpa")
    if setting.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if setting.chunk:
        require_loss_head(model, chunk=setting.chunk)
    optimizer = torch.optim.AdamW(model.train().parameters(), foreach=False)
    tracker = MemTracker()
    tracker.track_external(model, optimizer)
    with tracker:
        one_step(model, optimizer, setting)
        tracker.reset_mod_stats()
        one_step(model, optimizer, setting)
        found = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    return next(value for key, value in found.items() if "Total" in str(getattr(key, "value", key)))


def one_step(model: Any, optimizer: torch.optim.Optimizer, setting: Setting) -> None:
    ids = torch.randint(0, 2000, (setting.micro, setting.sequence))
    length = setting.sequence
    mask = torch.ones(setting.micro, 1, length, length, dtype=torch.bool).tril() if setting.apart else None
    with torch.autocast("cpu", torch.bfloat16) if setting.compute == 2 else contextlib.nullcontext():
        head = loss_head(model)
        if head is None:
            loss = causal_loss(model(ids, attention_mask=mask, use_cache=False).logits, ids)
        else:
            with head.asked_for(Targets(ids.flatten(), None)):
                loss = model(ids, use_cache=False).logits
    loss.backward()
    optimizer.step()


GPT2 = {"n_embd": 192, "n_layer": 4, "n_head": 3, "attn_pdrop": 0.0}
QWEN2 = {
    "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6,
    "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
BLOOM = {"hidden_size": 192, "n_layer": 4, "n_head": 6}
DROPPING = {**GPT2, "attn_pdrop": 0.1}


@pytest.mark.parametrize("compute", [4, 2])
@pytest.mark.parametrize(
    ("kind", "settings", "how"),
    [
        ("gpt2", GPT2, {}),
        ("gpt2", GPT2, {"eager": True}),
        ("gpt2", DROPPING, {"eager": True}),
        ("gpt2", DROPPING, {}),
        ("gpt2", GPT2, {"checkpointing": True}),
        ("gpt2", GPT2, {"chunk": 128}),
        ("qwen2", QWEN2, {}),
        ("qwen2", QWEN2, {"apart": True}),
        ("gpt2", GPT2, {"apart": True}),
        ("bloom", BLOOM, {}),
    ],
)
def test_a_real_step_takes_what_was_said(
    kind: str, settings: dict[str, Any], how: dict[str, Any], compute: int
) -> None:
    setting = Setting(sequence=256, micro=4, compute=compute, on_gpu=False, **how)
    peak = peak_of_tensors(kind, settings, setting)
    model = known_shape(kind, settings, vocabulary=2000, sequence=256)
    assert model is not None
    told = device_memory(model, setting).tensors
    assert math.isclose(told, peak, rel_tol=0.03), f"{told / peak - 1:+.1%}"
