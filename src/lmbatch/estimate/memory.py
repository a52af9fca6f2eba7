"""The memory of one process, part by part.

What is held all the time follows Rajbhandari et al. (ZeRO, arXiv:1910.02054, section 3.1), but for what this trainer
really does: weights stay in float32 and autocast makes 16-bit copies of them for the passes (train/deepspeed_config.py
says why), so that there are 4 + 4 + 8 = 16 bytes for each parameter, as in the paper, cut differently::

    engine           weights   gradients   optimizer (moments, and ZeRO's own float32 slice)     elsewhere
    plain            4 N       4 N         8 N                                                    buckets 4 N if W > 1
    ZeRO 0           4 N       4 N         8 N                                                    buckets
    ZeRO 1           4 N       4 N + 4 N/W 12 N/W                                                 buckets
    ZeRO 2           4 N       4 N/W       12 N/W                                                 buckets
    ZeRO 3           4 N/W     4 N/W       12 N/W                                                 buckets, live weights

Two gloo processes hold that to a thousandth between two steps, when no gradients are left: 16 N plain, 4 N + 12 N/W in
stages 1 and 2, and 20 N/W in stage 3, which keeps its gradients' place.

The peak is in the backward pass, which has the activations, or in the update, whose loop over all parameters at once
makes one temporary number for each (torch's `foreach`; a fused AdamW makes none).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lmbatch.config import EngineConfig
from lmbatch.config.base import Section
from lmbatch.estimate.activations import Rules, kept_bytes
from lmbatch.estimate.shape import ModelShape

_FLOAT = 4
_MIB = 2**20
# Assumed, not measured here: the CUDA context with cuBLAS's workspace, NCCL's own buffers, and what the caching
# allocator cannot give back because of fragmentation.
CUDA_CONTEXT = 600 * _MIB
NCCL = 400 * _MIB
FRAGMENTATION = 0.05
# On a CPU what malloc does not give back and oneDNN's own buffers: a 10 M GPT-2 had a quarter more than its tensors.
FRAGMENTATION_ON_CPU = 0.25


@dataclass(frozen=True)
class Setting:
    """How a model is trained: all that its memory depends on besides its shape.

    ``micro`` samples of ``sequence`` tokens at once on each of ``world`` processes; ``compute`` bytes of a number in a
    matrix product; ``chunk`` tokens have their logits at once (0: all); ``masked`` is the share of tokens that a
    masked model predicts, and has logits of; ``fused`` tells whether the optimizer makes no temporaries, ``eager``
    whether attention is made of plain matrices, ``apart`` whether documents of a sample do not see each other.
    """

    sequence: int
    micro: int
    world: int = 1
    compute: int = _FLOAT
    on_gpu: bool = True
    engine: EngineConfig = field(default_factory=EngineConfig)
    checkpointing: bool = False
    chunk: int = 0
    fused: bool = False
    eager: bool = False
    apart: bool = False
    masked: float | None = None


class Memory(Section):
    """Bytes on the device of one process. ``copies`` are autocast's 16-bit weights, ``recomputed`` a block that was
    forgotten, ``update`` the temporaries of the optimizer's step, ``context`` what the driver takes, ``reserve`` what
    fragmentation may cost. Logits, a block that is computed again and an update are never there at once."""

    weights: int
    gradients: int
    optimizer: int
    copies: int
    activations: int
    logits: int
    recomputed: int
    buffers: int
    update: int
    context: int
    reserve: int

    @property
    def held(self) -> int:
        """Bytes of tensors between two steps."""
        return self.weights + self.gradients + self.optimizer + self.buffers

    @property
    def tensors(self) -> int:
        """Bytes of all tensors at the peak."""
        return self.held + max(self.copies + self.activations + max(self.logits, self.recomputed), self.update)

    @property
    def total(self) -> int:
        """All that the device must have."""
        return self.tensors + self.context + self.reserve


def device_memory(shape: ModelShape, setting: Setting) -> Memory:
    """Of one process, in bytes. More processes never make it more."""
    held = _held(shape, setting)
    rules = Rules(setting.compute, setting.on_gpu, setting.eager, setting.apart)
    kept = kept_bytes(shape, setting.sequence, rules)
    tokens = setting.micro * setting.sequence
    each = kept.boundary if setting.checkpointing else kept.layer
    parts = {
        **held,
        "copies": setting.compute * _copied(shape, setting) if rules.mixed else 0,
        "activations": int(tokens * (shape.layers * each + kept.rest)),
        # The block, and two gradients of its widest part on their way through it.
        "recomputed": int(tokens * (kept.layer + 2 * _FLOAT * shape.inner)) if setting.checkpointing else 0,
        "logits": _logits(shape, setting),
        "update": _update(shape, setting),
    }
    context = (CUDA_CONTEXT + (NCCL if setting.world > 1 else 0)) if setting.on_gpu else 0
    share = FRAGMENTATION if setting.on_gpu else FRAGMENTATION_ON_CPU
    reserve = int(share * Memory(**parts, context=0, reserve=0).tensors)
    return Memory(**parts, context=context, reserve=reserve)


def host_memory(shape: ModelShape, setting: Setting, *, asynchronous: bool, processes_per_node: int) -> dict[str, int]:
    """Bytes of a node's memory, by part, besides what Python and its libraries take.

    An asynchronous save holds weights and both moments in float32 until they are written: each process what it holds
    of them, so one whole copy over all processes that share a node's part.
    """
    nodes = max(1, setting.world // processes_per_node)
    share = shape.parameters / nodes if _shared_out(setting) else float(shape.parameters)
    parts = {"interpreters": processes_per_node * (800 if setting.on_gpu else 500) * _MIB}
    if asynchronous:
        parts["copy for the save"] = int(12 * share)
    if setting.engine.offload_optimizer == "cpu":
        # Float32 slices, two moments, and the gradients that came over.
        parts["optimizer on the host"] = int(16 * share)
    return parts


def largest_micro(shape: ModelShape, setting: Setting, room: int, *, batch: int) -> int:
    """The most samples in a pass that fit into ``room`` bytes and divide ``batch`` over all processes; 0: none do."""
    own = batch // setting.world
    fitting = [micro for micro in range(1, own + 1) if own % micro == 0 and batch % setting.world == 0
               and device_memory(shape, replace(setting, micro=micro)).total <= room]  # fmt: skip
    return max(fitting, default=0)


def _shared_out(setting: Setting) -> bool:
    return setting.engine.name == "deepspeed" and setting.engine.zero_stage > 0


def _held(shape: ModelShape, setting: Setting) -> dict[str, int]:
    whole = _FLOAT * shape.parameters
    part = -(-whole // setting.world)
    stage = setting.engine.zero_stage if setting.engine.name == "deepspeed" else 0
    if stage == 0:
        return {"weights": whole, "gradients": whole, "optimizer": 2 * whole, "buffers": _buckets(shape, setting)}
    offloaded = setting.engine.offload_optimizer == "cpu"
    gradients = {1: whole + part, 2: part, 3: part}[stage] - (part if offloaded else 0)
    return {
        "weights": part if stage == 3 else whole,
        "gradients": gradients,
        "optimizer": 0 if offloaded else 3 * part,
        "buffers": _buckets(shape, setting) + (_live(shape, setting) if stage == 3 else 0),
    }


def _buckets(shape: ModelShape, setting: Setting) -> int:
    """Gradients on their way: all of them in data parallelism, which copies them; DeepSpeed's buckets, two if it
    reduces one while it fills the other, and the one that gathers the weights again."""
    if setting.engine.name == "plain":
        return _FLOAT * shape.parameters if setting.world > 1 else 0
    bucket = _FLOAT * min(setting.engine.bucket_elements, shape.parameters)
    overlapping = 2 if setting.engine.overlap_comm and setting.on_gpu else 1
    return bucket * (overlapping if setting.engine.zero_stage else 1)


def _live(shape: ModelShape, setting: Setting) -> int:
    """Weights that stage 3 has put together: as many as its bucket prefetches, the largest layer at least."""
    live = max(shape.largest_layer, min(setting.engine.bucket_elements, shape.parameters))
    return _FLOAT * live if setting.world > 1 else 0


def _copied(shape: ModelShape, setting: Setting) -> int:
    """Weights of matrix products that have a 16-bit copy at once: all, as long as blocks are remembered whole."""
    if setting.checkpointing:
        return min(shape.multiplied, shape.vocabulary * shape.hidden + shape.block_parameters)
    if setting.engine.name == "deepspeed" and setting.engine.zero_stage == 3 and setting.world > 1:
        return min(shape.multiplied, max(shape.largest_layer, setting.engine.bucket_elements))
    return shape.multiplied


def _logits(shape: ModelShape, setting: Setting) -> int:
    """Of the tokens that are predicted: in the backward pass of cross-entropy log-probabilities and two gradients in
    float32. In chunks (model/chunked_loss.py) logits and log-probabilities in float32 and the gradient in the precision
    of products, and beside them the projection's own gradient, which is made at once."""
    tokens = setting.micro * setting.sequence
    predicted = tokens if setting.masked is None else int(setting.masked * tokens)
    mixed = setting.compute if setting.compute < _FLOAT else 0
    if not setting.chunk:
        return 3 * _FLOAT * shape.vocabulary * predicted
    matrix = shape.vocabulary * shape.hidden * (_FLOAT + mixed)
    return (2 * _FLOAT + mixed) * shape.vocabulary * min(predicted, setting.chunk) + matrix


def _update(shape: ModelShape, setting: Setting) -> int:
    """One temporary number for each that this process steps; on a CPU the loop goes tensor by tensor."""
    if setting.fused or setting.engine.offload_optimizer == "cpu":
        return 0
    if not setting.on_gpu:
        return _FLOAT * shape.vocabulary * shape.hidden
    return _FLOAT * shape.parameters // (setting.world if _shared_out(setting) else 1)
