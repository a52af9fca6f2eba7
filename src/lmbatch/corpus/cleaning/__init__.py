"""What is done to a document between reading and tokenizing.

::

    CleaningConfig ──rules()──▶ build_cleaner ──▶ Cleaner
                                                    │
    Document ──▶ transformations, until a round changes nothing ──▶ filters ──▶ Document (changed = rules that bit)
                 characters · markup · personal · title · script      │           or Rejected(dropped=True, reason)
                                                                      measures · words · script

``preprocess`` calls it for every document of a task, ``tokens`` for the sample that a tokenizer is trained on.
A transformation is a pure function str → str, a filter one from a measured text to a complaint or None; ``build``
holds the two tables that show their order. ``redact`` makes texts fit to be shown before they were cleaned.
"""

from lmbatch.corpus.cleaning.build import Cleaner, build_cleaner, cleaning_libraries
from lmbatch.corpus.cleaning.redact import PLACEHOLDERS, Redactor, build_redactor

__all__ = ["PLACEHOLDERS", "Cleaner", "Redactor", "build_cleaner", "build_redactor", "cleaning_libraries"]
