"""Engines that turn text into ids: Hugging Face's is the truth, the others are faster and must prove themselves.

::

    TextTokenizer ──make_engine──▶ Engine.encode(texts) ──▶ Encoder (proof, EOD) ──▶ preprocess
                                     huggingface   every model, always there
                                     table         BERT's WordPiece: ideographs by a table, the rest by one of
                                     nanotoken     WordPiece          } the optional extra lmbatch[fast]
                                     fastokens     byte-level BPE     }

An engine is made from the Hugging Face tokenizer itself, never from files, so both have read the same thing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from tokenizers import Tokenizer

from lmbatch.errors import TokenizerError
from lmbatch.tokens.engines.fastokens import make_fastokens
from lmbatch.tokens.engines.huggingface import HuggingFaceEngine
from lmbatch.tokens.engines.nanotoken import make_nanotoken
from lmbatch.tokens.engines.protocol import Engine, Ids, UnfitError
from lmbatch.tokens.engines.table import make_table
from lmbatch.tokens.parts import parts_of

__all__ = ["Engine", "HuggingFaceEngine", "Ids", "UnfitError", "make_engine"]

_log = logging.getLogger(__name__)
_MAKERS: dict[str, Callable[[Tokenizer], Engine]] = {
    "table": make_table,
    "nanotoken": make_nanotoken,
    "fastokens": make_fastokens,
}
# The fastest first.
_OF_MODEL = {"WordPiece": ("table", "nanotoken"), "BPE": ("fastokens",)}


def make_engine(backend: Tokenizer, wanted: str) -> Engine | None:
    """The fast engine for a tokenizer, or None where Hugging Face is what there is (or what is ``wanted``).

    ``auto`` takes the one for the model's type, and does without it if it is not installed or does not fit. An
    engine asked for by name must be there: otherwise TokenizerError. It has proved nothing yet.
    """
    if wanted == "huggingface":
        return None
    model = parts_of(backend)["model"]["type"]
    for name in _OF_MODEL.get(model, ()) if wanted == "auto" else (wanted,):
        try:
            return _MAKERS[name](backend)
        except (ImportError, UnfitError) as error:
            if wanted != "auto":
                raise TokenizerError(
                    f"tokenizer.engine is {wanted}, which cannot be used here: {error}",
                    remedy="install it (pip install 'lmbatch[fast]'), or set tokenizer.engine to auto",
                ) from error
            _log.debug("no engine %s: %s", name, error)
    return None
