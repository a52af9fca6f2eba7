"""What a tokenizer is made of, without its vocabulary and merges."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer


def parts_of(backend: Tokenizer) -> dict[str, Any]:
    """The steps as ``tokenizer.json`` spells them: ``added_tokens``, ``normalizer``, ``pre_tokenizer``, and of the
    ``model`` its ``type`` and ``dropout``.

    Asked of each step by itself: all of a vocabulary of 150,000 entries with its merges as Python values would take
    more memory than the tokenizer.
    """
    added = backend.get_added_tokens_decoder().values()
    model = backend.model
    return {
        "added_tokens": [{"content": token.content, "special": token.special} for token in added],
        "normalizer": _spelled(backend.normalizer),
        "pre_tokenizer": _spelled(backend.pre_tokenizer),
        "model": {"type": type(model).__name__, "dropout": getattr(model, "dropout", None)},
    }


def _spelled(step: Any) -> Any:
    """What it is pickled as is its JSON."""
    return None if step is None else json.loads(step.__getstate__())
