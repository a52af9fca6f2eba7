"""Rules that stand on an optional library (extra ``zh``): Traditional → Simplified, and the language of a text.

OpenCC is the reference implementation of the conversion, in C++ and still maintained. py3langid (a small model of 97
languages within the package, numpy only) was taken for the language: lingua is more exact on single sentences but
weighs a hundred megabytes, and fastText needs a model that must be downloaded apart.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from typing import Any

from lmbatch.errors import ConfigError

_LANGUAGE_CHARACTERS = 1000


def simplifier() -> Callable[[str], str]:
    """Traditional → Simplified, phrase by phrase. Raises ConfigError if OpenCC is not installed."""
    convert: Callable[[str], str] = _library("opencc", "simplify").OpenCC("t2s").convert
    return convert


def language_of() -> Callable[[str], str]:
    """The ISO 639-1 code of a text's language. Raises ConfigError if py3langid is not installed."""
    classify = _library("py3langid", "languages").classify
    return lambda text: str(classify(text[:_LANGUAGE_CHARACTERS])[0])


def complain_of_language(languages: Collection[str]) -> Callable[[str], str | None]:
    """A filter: the text's language if it is none of ``languages``, else None."""
    classify = language_of()

    def complain(text: str) -> str | None:
        language = classify(text)
        return None if language in languages else f"it is {language}"

    return complain


def _library(module: str, key: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"cleaning.{key} needs the package {module}, which is not installed ({error})",
            remedy="pip install 'lmbatch[zh]'",
        ) from error
