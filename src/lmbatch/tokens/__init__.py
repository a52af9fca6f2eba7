"""Tokenizers: load a folder, train one, encode exactly as Hugging Face ``tokenizers`` does.

::

    tokenizer folder ──load──▶ TextTokenizer ──▶ Encoder.encode(texts) ──▶ arrays of ids (preprocess)
                                                    └── engines/: fast ones, proved against Hugging Face's
    documents (corpus) ──train──▶ tokenizer folder

Works with the base install: ``transformers`` is not needed to write shards. ``tokens.train`` reads a corpus and is
imported by name, so that training a model (which loads a tokenizer) never imports corpus code.
"""

from lmbatch.tokens.encode import Encoder, EngineDroppedError
from lmbatch.tokens.load import TextTokenizer, load_tokenizer

__all__ = ["Encoder", "EngineDroppedError", "TextTokenizer", "load_tokenizer"]
