"""The kinds of tokenizer that can be trained, each from texts to a pipeline; the same texts give the same ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lmbatch.config import TokenizerConfig
from lmbatch.config.tokenizer import POST_PROCESSED
from lmbatch.tokens.segmentation import Segment

UNKNOWN = "[UNK]"
_TAKES_SPACE = ("<mask>",)
# Words that are counted at once; above it those seen once are forgotten, which bounds memory to about a gigabyte.
_WORDS_AT_ONCE = 4_000_000


def byte_bpe(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """Byte-level BPE as in GPT-2 (Radford et al. 2019, section 2.2): no unknown token is possible."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=special(config.special_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(iter(texts), trainer=trainer)
    return backend


def wordpiece(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """WordPiece with BERT's normaliser, each ideograph a word of its own. Reads ``texts`` twice.

    The library numbers the pieces ``##x`` in the order of a hash table, which differs from run to run, and breaks ties
    between merges by those numbers. So the characters are counted first and ``##x`` are given to the trainer in a
    fixed order, as if they were special.
    """
    normalizer = normalizers.BertNormalizer(lowercase=config.lowercase)
    splitter = pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    fixed = [*config.special_tokens]
    alphabet: set[str] = set()
    for character in _frequent(counts, config.min_frequency):
        entries = [f"##{character}"] if _joins(character, normalizer, splitter) else []
        if len(fixed) + len(alphabet) + len(entries) >= config.vocab_size:
            break
        alphabet.add(character)
        fixed += entries
    trainee = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    trainee.pre_tokenizer = splitter
    rare = str.maketrans(dict.fromkeys(counts.keys() - alphabet, " "))
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=special(fixed),
        show_progress=False,
    )
    trainee.train_from_iterator((normalizer.normalize_str(text).translate(rare) for text in texts), trainer=trainer)

    model: Any = models.WordPiece
    backend = Tokenizer(model(trainee.get_vocab(), unk_token=UNKNOWN, max_input_chars_per_word=100))
    backend.normalizer = normalizer
    backend.pre_tokenizer = splitter
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(special(config.special_tokens))
    return backend


def word(config: TokenizerConfig, texts: Iterable[str], segment: Segment) -> Tokenizer:
    """The most frequent words of segmented texts, equal counts in order of their spelling."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(segment(text).split())
        if len(counts) > _WORDS_AT_ONCE:
            counts = Counter({one: count for one, count in counts.items() if count > 1})
    found = (one for one in _frequent(counts, config.min_frequency) if one not in config.special_tokens)
    entries = [*config.special_tokens, *found][: config.vocab_size]
    model: Any = models.WordLevel
    backend = Tokenizer(model({entry: number for number, entry in enumerate(entries)}, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(special(config.special_tokens))
    return backend


def special(tokens: Iterable[str]) -> list[AddedToken]:
    """Tokens that no normaliser touches and that decoding can leave out.

    RoBERTa's mask takes the space before it, since it stands for a word together with its space.
    """
    return [AddedToken(token, normalized=False, special=True, lstrip=token in _TAKES_SPACE) for token in tokens]


def add_post_processor(config: TokenizerConfig, backend: Tokenizer) -> None:
    """Let plain transformers put the first and last token around a text, as RoBERTa or BERT does."""
    if config.post_processor == "none":
        return
    pair = next(pair for pair in POST_PROCESSED if {*pair} <= {*config.special_tokens})
    first, last = ((token, backend.token_to_id(token)) for token in pair)
    makers: Any = processors  # its stubs do not know that an id may be there
    if config.post_processor == "bert":
        backend.post_processor = makers.BertProcessing(last, first)
    else:
        backend.post_processor = makers.RobertaProcessing(last, first, add_prefix_space=False)


def _frequent(counts: Counter[str], least: int) -> Iterator[str]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return (one for one, count in ordered if count >= least)


def _joins(character: str, normalizer: Any, splitter: Any) -> bool:
    """Can it stand inside a word? Ideographs, punctuation and white space cannot."""
    return len(splitter.pre_tokenize_str(normalizer.normalize_str(f"a{character}a"))) == 1
