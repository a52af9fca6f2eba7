"""Tokenizers: load a folder, train one, encode exactly as Hugging Face ``tokenizers`` does.

::

    tokenizer folder ──load──▶ TextTokenizer ──▶ Encoder.encode(texts) ──▶ lists of ids (preprocess)
    documents (corpus) ──train──▶ tokenizer folder

Works with the base install: ``transformers`` is not needed to write shards.
"""

from lmbatch.tokens.encode import Encoder
from lmbatch.tokens.load import TextTokenizer, load_tokenizer
from lmbatch.tokens.train import train_tokenizer

__all__ = ["Encoder", "TextTokenizer", "load_tokenizer", "train_tokenizer"]
