"""From the config to one function: which rules there are, and in which order they run."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from typing import Any

from lmbatch.config import CleaningConfig, CleaningRules
from lmbatch.corpus.cleaning import characters, markup, measures, personal, script, words
from lmbatch.corpus.cleaning.characters import Transformation
from lmbatch.corpus.cleaning.measures import Filter, Measured
from lmbatch.corpus.cleaning.title import without_title
from lmbatch.corpus.document import Document, Rejected

Cleaner = Callable[[Document], Document | Rejected]

_ROUNDS = 8
_EXCERPT = 300
_OFF = CleaningRules()

# Markup goes first, since entities may stand for anything that the others look for. E-mail addresses go before the
# telephone numbers that they may hold. The title comes last (see _Cleaner): it is compared after the same cleaning.
TRANSFORMATIONS: tuple[tuple[str, Callable[[Any], Transformation]], ...] = (
    ("html", lambda _: markup.without_markup),
    ("unicode", characters.normalizer),
    ("control", lambda _: characters.without_invisible),
    ("whitespace", lambda _: characters.plain_whitespace),
    ("simplify", lambda _: script.simplifier()),
    ("punctuation", lambda _: characters.full_width_punctuation),
    ("urls", lambda _: personal.without_urls),
    ("emails", lambda _: personal.without_emails),
    ("identity_numbers", lambda _: personal.without_identity_numbers),
    ("phone_numbers", lambda _: personal.without_phone_numbers),
)

# Cheap ones first: the first that complains names the reason. Blocked words and the language follow.
FILTERS: tuple[tuple[str, str, Callable[[Any], Filter]], ...] = (
    ("min_characters", "too_short", measures.shorter_than),
    ("max_characters", "too_long", measures.longer_than),
    ("min_chinese_share", "too_little_chinese", measures.below("chinese_share")),
    ("max_symbol_share", "too_many_symbols", measures.above("symbol_share")),
    ("max_duplicate_line_share", "repeated_lines", measures.above("duplicate_line_share")),
    ("max_ngram_share", "repeated_ngrams", measures.above("ngram_share")),
)

Step = tuple[str, Transformation]


def build_cleaner(config: CleaningConfig) -> Cleaner:
    """A pure function from a document to the cleaned one, or to a Rejected that names the rule (``dropped=True``).

    A document that no rule changes comes back as the same object; a changed one names the rules in ``changed``.
    Raises ConfigError if a rule's library is not installed or the file of blocked words is not the one of the config.
    """
    rules = config.rules()
    steps = transformations(config)
    filters = [(reason, make(getattr(rules, name))) for name, reason, make in FILTERS if _is_on(rules, name)]
    filters += _filters_by_list(config)
    if not steps and not filters and not rules.title:
        return lambda document: document
    return _Cleaner(steps, rules.title, filters)


def cleaning_libraries(config: CleaningConfig) -> dict[str, str]:
    """What the cleaned text depends on besides the config: library → version. Empty where no rule is on.

    Python's Unicode tables decide normal forms and what a letter is, OpenCC's dictionaries the Simplified text.
    """
    rules = config.rules()
    if rules == CleaningRules() and not config.languages:
        return {}
    found = {"Unicode": unicodedata.unidata_version}
    if rules.simplify:
        found["opencc"] = metadata.version("opencc")
    if config.languages:
        found["py3langid"] = metadata.version("py3langid")
    return found


def transformations(config: CleaningConfig) -> list[Step]:
    """The rules that change texts and are switched on, by name and in order; the title's is not among them.

    Raises ConfigError if a rule's library is not installed.
    """
    rules = config.rules()
    return [(name, make(getattr(rules, name))) for name, make in TRANSFORMATIONS if _is_on(rules, name)]


def _is_on(rules: CleaningRules, name: str) -> bool:
    return bool(getattr(rules, name) != getattr(_OFF, name))


def _filters_by_list(config: CleaningConfig) -> list[tuple[str, Filter]]:
    filters: list[tuple[str, Filter]] = []
    if config.blocked_words is not None:
        blocked = words.complain_of_words(words.read_words(config.blocked_words, config.blocked_words_sha256))
        filters.append(("blocked_word", lambda found: blocked(found.text)))
    if config.languages:
        other = script.complain_of_language(config.languages)
        filters.append(("other_language", lambda found: other(found.text)))
    return filters


class _Cleaner:
    def __init__(self, steps: Sequence[Step], title: bool, filters: Sequence[tuple[str, Filter]]) -> None:
        self._steps, self._title, self._filters = tuple(steps), title, tuple(filters)

    def __call__(self, document: Document) -> Document | Rejected:
        settled = settle(document.text, (*self._steps, *self._title_step(document)))
        if settled is None:
            return _drop(document, document.text, "unsettled", f"{_ROUNDS} rounds of cleaning do not come to an end")
        text, changed = settled
        if not text or text.isspace():
            return _drop(document, document.text, "empty_after_cleaning", f"nothing is left after {', '.join(changed)}")
        measured = Measured(text)
        for reason, complain in self._filters:
            if (complaint := complain(measured)) is not None:
                return _drop(document, text, reason, complaint)
        return replace(document, text=text, changed=changed) if changed else document

    def _title_step(self, document: Document) -> tuple[Step, ...]:
        title = document.metadata.get("title") if self._title else None
        if not isinstance(title, str) or not (cleaned := settle(title.strip(), self._steps)):
            return ()
        return (("title", lambda text: without_title(text, cleaned[0])),)


def settle(text: str, steps: Sequence[Step]) -> tuple[str, tuple[str, ...]] | None:
    """Apply the steps in order until a whole round changes nothing; the text, and the names of those that changed it.

    One rule can uncover work for another (a zero-width space within a tag), so one round is not always enough; that
    the last round changed nothing makes cleaning idempotent. None if 8 rounds do not do, as for entities that were
    escaped again and again.
    """
    changed: set[str] = set()
    for _ in range(_ROUNDS):
        before, names = text, set()
        for name, step in steps:
            after = step(text)
            if after != text:
                names.add(name)
                text = after
        if text == before:  # two rules may also have undone each other's work, as NFKC and punctuation do
            return text, tuple(name for name, _ in steps if name in changed)
        changed |= names
    return None


def _drop(document: Document, text: str, reason: str, detail: str) -> Rejected:
    length = len(document.text.encode("utf-8", "surrogatepass"))
    return Rejected(document.path, document.position, length, reason, detail, text[:_EXCERPT], dropped=True)
