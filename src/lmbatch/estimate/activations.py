"""What a forward pass keeps for the backward pass, in bytes.

The way of counting is that of Korthikanti et al. (arXiv:2205.05198, section 4): the tensors that autograd saves, block
by block. The blocks are those of transformers, whose gelu is made of single operations and whose residual stream stays
in float32 under autocast; sdpa and flash attention keep no T × T matrix, eager attention and BLOOM's own do. Under
autocast every matrix product keeps its own 16-bit copy of its input, and on a GPU norms and powers are done in float32
(https://docs.pytorch.org/docs/stable/amp.html, "CUDA Ops that can autocast to float32").
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lmbatch.estimate.shape import ModelShape

_FLOAT = 4


@dataclass(frozen=True)
class Rules:
    """``compute``: bytes of a number in a matrix product. ``on_gpu``: CUDA's rules, else those of the CPU. ``eager``:
    attention by plain matrices. ``apart``: attention has a mask, for documents that do not see each other."""

    compute: int
    on_gpu: bool = True
    eager: bool = False
    apart: bool = False

    @property
    def mixed(self) -> bool:
        """Is it autocast over weights in float32?"""
        return self.compute < _FLOAT

    @property
    def mask(self) -> int:
        """Bytes of one place in the mask of dropout."""
        return 1 if self.on_gpu else self.compute

    def inputs(self, width: int, products: int) -> int:
        """A norm's output, which goes into ``products`` matrix products."""
        return self.compute * width * products if self.mixed else _FLOAT * width


@dataclass(frozen=True)
class Kept:
    """Bytes: ``layer`` of one block for each token, ``rest`` of all else for each token, ``boundary`` what a block
    that is computed again begins with."""

    layer: float
    rest: float
    boundary: float


def kept_bytes(shape: ModelShape, sequence: int, rules: Rules) -> Kept:
    """Of one token in a sample of ``sequence`` tokens, logits apart."""
    boundary = float(_FLOAT * shape.hidden)
    if shape.block == "traced":
        return Kept((shape.traced or 0) / sequence / shape.layers, 0.0, boundary)
    layer = {"gpt2": _gpt2, "gated": _gated, "bloom": _bloom, "bert": _bert}[shape.block](shape, sequence, rules)
    return Kept(layer, _rest(shape, rules), boundary)


def _norm(shape: ModelShape, rules: Rules, products: int) -> int:
    """A layer norm: its input, mean and deviation, and its output, which only the products keep."""
    return _FLOAT * shape.hidden + 2 * _FLOAT + rules.inputs(shape.hidden, products)


def _rms_norm(shape: ModelShape, rules: Rules, products: int) -> int:
    """Made of single operations: its input, the root, the normal values; the output is kept by the products."""
    return 2 * _FLOAT * shape.hidden + _FLOAT + rules.inputs(shape.hidden, products)


def _attention(shape: ModelShape, sequence: int, rules: Rules) -> int:
    """sdpa: queries, keys, values, its output (which is the next product's input), a sum for each row; in eager
    attention whole matrices in place of the sum, and on a CPU in sdpa too where it has dropout."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    output = rules.compute * queries
    if rules.eager or (shape.attention_dropout and not rules.on_gpu):
        inputs = rules.compute if rules.eager else _FLOAT
        return inputs * (queries + 2 * keys) + output + shape.heads * sequence * _matrices(shape, rules)
    if rules.apart:  # each layer makes numbers of the mask, and repeats keys and values for all heads
        return rules.compute * (3 * queries + sequence) + output + _FLOAT * shape.heads
    return rules.compute * (queries + 2 * keys) + output + _FLOAT * shape.heads


def _matrices(shape: ModelShape, rules: Rules) -> int:
    """Bytes for each place of the attention's matrix: the softmax in float32, then what goes into the product."""
    product = rules.compute if rules.mixed or shape.attention_dropout else 0
    if not rules.eager:  # sdpa without a fused kernel: all in float32
        return 3 * _FLOAT
    return _FLOAT + product + (rules.mask if shape.attention_dropout else 0)


def _masks(shape: ModelShape, rules: Rules) -> int:
    return 2 * rules.mask * shape.hidden if shape.dropout else 0


def _gpt2(shape: ModelShape, sequence: int, rules: Rules) -> float:
    # gelu_new: of x³ its base, tanh's result, x/2, 1 + tanh, and the product's input. CUDA's power is float32.
    wide = _FLOAT if rules.on_gpu else rules.compute
    gelu = (3 * wide + 2 * rules.compute) * shape.inner
    return 2 * _norm(shape, rules, 1) + _attention(shape, sequence, rules) + gelu + _masks(shape, rules)


def _gated(shape: ModelShape, sequence: int, rules: Rules) -> float:
    mlp = 4 * rules.compute * shape.inner  # the gate before and after silu, what it lets through, their product
    return _rms_norm(shape, rules, 3) + _rms_norm(shape, rules, 2) + _attention(shape, sequence, rules) + mlp


def _bloom(shape: ModelShape, sequence: int, rules: Rules) -> float:
    # Its attention is always made of whole matrices, and of contiguous copies of queries, keys and values.
    attention = _attention(shape, sequence, replace(rules, eager=True))
    return 2 * _norm(shape, rules, 1) + attention + 2 * rules.compute * shape.inner + _masks(shape, rules)


def _bert(shape: ModelShape, sequence: int, rules: Rules) -> float:
    norms = _norm(shape, rules, 3) + _norm(shape, rules, 1)
    return norms + _attention(shape, sequence, rules) + 2 * rules.compute * shape.inner + _masks(shape, rules)


def _rest(shape: ModelShape, rules: Rules) -> float:
    """The last norm and the head; of the embedding, its dropout's mask."""
    mask = rules.mask * shape.hidden if shape.dropout else 0
    match shape.block:
        case "gated":
            return _rms_norm(shape, rules, 1)
        case "bert":  # a dense layer with gelu before the norm of the head, and a norm behind the embedding
            return 2 * _norm(shape, rules, 1) + 2 * rules.compute * shape.hidden + mask
        case "bloom":
            return 2 * _norm(shape, rules, 1) - rules.inputs(shape.hidden, 1)
    return _norm(shape, rules, 1) + mask
