"""Texts that are shown to people before they were cleaned, without the personal data that cleaning takes out."""

from __future__ import annotations

from dataclasses import dataclass

from lmbatch.config import CleaningConfig
from lmbatch.corpus.cleaning import personal
from lmbatch.corpus.cleaning.build import Step, settle, transformations

PLACEHOLDERS = {
    "urls": personal.URL,
    "emails": personal.EMAIL,
    "identity_numbers": personal.IDENTITY_NUMBER,
    "phone_numbers": personal.PHONE_NUMBER,
}  # the rules for personal data, and what they leave


@dataclass(frozen=True)
class Redactor:
    """Replaces what the config's rules for personal data find, and nothing else.

    ``active`` tells whether there is such a rule; without one every text is given back as it is.
    """

    personal: tuple[Step, ...]
    all_steps: tuple[Step, ...]

    @property
    def active(self) -> bool:
        """Is any rule for personal data switched on?"""
        return bool(self.personal)

    def __call__(self, text: str) -> str | None:
        """The redacted text; None if cleaning would still find personal data in it (digits with a zero-width space or
        an entity between them), or does not come to an end.
        """
        if not self.personal:
            return text
        for _, step in self.personal:
            text = step(text)
        settled = settle(text, self.all_steps)
        names = {name for name, _ in self.personal}
        return text if settled is not None and names.isdisjoint(settled[1]) else None


def build_redactor(config: CleaningConfig) -> Redactor:
    """Raises ConfigError if a rule's library is not installed."""
    steps = tuple(transformations(config))
    return Redactor(tuple(step for step in steps if step[0] in PLACEHOLDERS), steps)
