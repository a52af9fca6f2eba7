"""The shape of a model: all that its memory and its work follow from, by arithmetic alone.

The counts are those of transformers' own classes, to the parameter (tests/unit/estimate/test_shape.py builds them), so
that a login node without torch can plan. A type that is not here is built on the meta device instead (model/size.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from lmbatch.config.base import Section

# How a block keeps its activations: GPT-2's with its gelu in single operations, gated (SwiGLU, RMSNorm, rotary
# positions), BLOOM's with whole attention matrices, BERT's with the norms behind; anything else was counted by tracing.
Block = Literal["gpt2", "gated", "bloom", "bert", "traced"]


class ModelShape(Section):
    """A transformer.

    ``heads`` query heads and ``kv_heads`` key/value heads are ``head_dim`` wide, ``inner`` is the width within the
    MLP, ``vocabulary`` the rows of the table. ``parameters`` counts a tied matrix once; ``embedding`` are the tables
    that map tokens and positions to vectors; ``multiplied`` are those that every token is multiplied with (a tied
    output projection included); ``dropout`` tells whether the residual stream has any, ``attention_dropout`` the same
    of the attention's matrix. ``traced`` are bytes that one sample keeps for the backward pass, for a ``block`` that
    has no formula.
    """

    type: str
    block: Block
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int
    parameters: int
    embedding: int
    multiplied: int
    dropout: bool
    attention_dropout: bool = False
    traced: int | None = None

    def flops_per_token(self, sequence: int) -> float:
        """FLOPs of one token's forward and backward pass in samples of ``sequence`` tokens."""
        return palm_flops(self.multiplied, self.layers, self.heads * self.head_dim, sequence)

    @property
    def largest_layer(self) -> int:
        """Parameters of one block, or of the table if that is more: what ZeRO 3 must have whole at once."""
        return max(self.block_parameters, self.vocabulary * self.hidden)

    @property
    def block_parameters(self) -> int:
        """Parameters of one block, or a little more: the head is shared out over them."""
        return (self.parameters - self.embedding) // self.layers


def palm_flops(multiplied: int, layers: int, width: int, sequence: int) -> float:
    """FLOPs of one token's forward and backward pass: ``6·N + 12·L·H·Q·T``.

    The formula is that of PaLM, appendix B (arXiv:2204.02311): N parameters that are multiplied with, L layers, H heads
    of width Q (``width`` is H·Q), T = ``sequence``. Looking a vector up costs nothing, so N leaves the embedding tables
    out, but the output projection is a product even where it shares its matrix with the embedding.
    """
    return 6.0 * multiplied + 12.0 * layers * width * sequence


# Another name of a key, and its value where a config leaves it out: those of transformers' config classes.
_ALIASES = {
    "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings", "n_ctx": "max_position_embeddings", "n_inner": "intermediate_size",
}  # fmt: skip
_LLAMA = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
}  # fmt: skip
_BERT = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "type_vocab_size": 2, "tie_word_embeddings": True,
}  # fmt: skip
_DEFAULTS: dict[str, dict[str, Any]] = {
    "gpt2": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "tie_word_embeddings": True},
    "llama": _LLAMA,
    "mistral": _LLAMA | {"intermediate_size": 14336, "num_key_value_heads": 8},
    "qwen2": _LLAMA | {"intermediate_size": 22016, "num_key_value_heads": 32},
    "bloom": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8, "tie_word_embeddings": True},
    "bert": _BERT,
    "roberta": _BERT,
}
KNOWN_TYPES = tuple(_DEFAULTS)
_SHIFT = {"roberta": 2}  # its positions count from the padding id + 1 on, and that id is 1
BLOCKS: dict[str, Block] = {
    "gpt2": "gpt2", "llama": "gated", "mistral": "gated", "qwen2": "gated", "bloom": "bloom", "bert": "bert",
    "roberta": "bert",
}  # fmt: skip
_BERT_DROPOUT = (("hidden_dropout_prob", 0.1), ("attention_probs_dropout_prob", 0.1))
# Of the residual stream and of the attention's matrix: the key, and its value where a config leaves it out.
_DROPOUT = {
    "gpt2": (("resid_pdrop", 0.1), ("attn_pdrop", 0.1)),
    "bloom": (("hidden_dropout", 0.0), ("attention_dropout", 0.0)),
    "bert": _BERT_DROPOUT,
    "roberta": _BERT_DROPOUT,
}


def padded_rows(size: int, multiple: int | None) -> int:
    """``size`` rounded up to ``multiple``; as it is without one."""
    return size if multiple is None else -(-size // multiple) * multiple


def known_shape(kind: str, settings: Mapping[str, Any], *, vocabulary: int, sequence: int) -> ModelShape | None:
    """The shape of a model of type ``kind`` with the ``settings`` of its config; None for a type that is not known.

    ``vocabulary`` and ``sequence`` fill in what the settings leave out, as building the model does.
    """
    if kind not in _DEFAULTS:
        return None
    filled: dict[str, Any] = {"vocab_size": vocabulary, "max_position_embeddings": sequence + _SHIFT.get(kind, 0)}
    filled |= _DEFAULTS[kind] | {_spelling(kind, key): value for key, value in settings.items()}
    if kind == "bloom":
        filled["intermediate_size"] = 4 * filled["hidden_size"]
    sizes = _Sizes(filled)
    inside, tables = _COUNTS[BLOCKS[kind]](sizes, kind)
    output = 0 if sizes.tied else sizes.vocabulary * sizes.hidden
    residual, attention = (
        settings.get(key, usual) > 0 for key, usual in _DROPOUT.get(kind, (("", 0.0), ("attention_dropout", 0.0)))
    )
    return ModelShape(
        type=kind, block=BLOCKS[kind], layers=sizes.layers, hidden=sizes.hidden, heads=sizes.heads,
        kv_heads=sizes.kv_heads, head_dim=sizes.head_dim, inner=sizes.inner, vocabulary=sizes.vocabulary,
        parameters=inside + tables + output, embedding=tables, multiplied=inside + sizes.vocabulary * sizes.hidden,
        dropout=residual, attention_dropout=attention,
    )  # fmt: skip


def _spelling(kind: str, key: str) -> str:
    # BLOOM's own name for its width is not an alias that other types have.
    return _ALIASES.get(key, key) if kind in ("gpt2", "bloom") else key


class _Sizes:
    """The numbers that a count is made of."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.hidden = int(values["hidden_size"])
        self.layers = int(values["num_hidden_layers"])
        self.heads = int(values["num_attention_heads"])
        self.kv_heads = int(values.get("num_key_value_heads") or self.heads)
        self.head_dim = int(values.get("head_dim") or self.hidden // self.heads)
        self.inner = int(values.get("intermediate_size") or 4 * self.hidden)
        self.vocabulary = int(values["vocab_size"])
        self.positions = int(values["max_position_embeddings"])
        self.tied = bool(values["tie_word_embeddings"])

    @property
    def mlp(self) -> int:
        """Two matrices with biases."""
        return 2 * self.hidden * self.inner + self.inner + self.hidden

    @property
    def square_attention(self) -> int:
        """Four square matrices with biases."""
        return 4 * (self.hidden * self.hidden + self.hidden)


def _gpt2(sizes: _Sizes, kind: str) -> tuple[int, int]:
    """Parameters apart from tables and an untied output; those of the tables."""
    norms = 4 * sizes.hidden
    inside = sizes.layers * (norms + sizes.square_attention + sizes.mlp) + 2 * sizes.hidden
    return inside, (sizes.vocabulary + sizes.positions) * sizes.hidden


def _gated(sizes: _Sizes, kind: str) -> tuple[int, int]:
    queries, keys = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    bias = sizes.values["attention_bias"] and kind == "llama"
    attention = 2 * sizes.hidden * (queries + keys)
    attention += queries + 2 * keys if kind == "qwen2" or bias else 0
    attention += sizes.hidden if bias else 0
    mlp = 3 * sizes.hidden * sizes.inner
    mlp += 2 * sizes.inner + sizes.hidden if sizes.values["mlp_bias"] and kind == "llama" else 0
    inside = sizes.layers * (attention + mlp + 2 * sizes.hidden) + sizes.hidden
    return inside, sizes.vocabulary * sizes.hidden


def _bloom(sizes: _Sizes, kind: str) -> tuple[int, int]:
    inside, _ = _gpt2(sizes, kind)
    return inside + 2 * sizes.hidden, sizes.vocabulary * sizes.hidden  # a norm behind the table; no positions


def _bert(sizes: _Sizes, kind: str) -> tuple[int, int]:
    norm = 2 * sizes.hidden
    layer = sizes.square_attention + sizes.mlp + 2 * norm
    head = sizes.hidden * sizes.hidden + sizes.hidden + norm + sizes.vocabulary
    tables = (sizes.vocabulary + sizes.positions + int(sizes.values["type_vocab_size"])) * sizes.hidden
    return sizes.layers * layer + norm + head, tables


_COUNTS = {"gpt2": _gpt2, "gated": _gated, "bloom": _bloom, "bert": _bert}
