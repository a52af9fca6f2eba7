"""Where a prompt and its continuation fit into the context. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a prompt that the model sees, and how many tokens may follow it."""

    ids: tuple[int, ...]
    dropped: int  # tokens cut off the prompt's beginning
    new: int


def fit(ids: Sequence[int], *, max_new_tokens: int, context: int) -> Window:
    """Fit prompt and continuation into ``context`` tokens, which must be at least 2.

    The continuation is never cut below half of the context for the prompt's sake, and the prompt keeps its last part:
    what was written last decides most about what comes next.
    """
    new = min(max_new_tokens, max(context - len(ids), context // 2))
    kept = tuple(ids[-(context - new) :])
    return Window(kept, len(ids) - len(kept), new)


def warnings_of(window: Window, *, max_new_tokens: int, context: int, number: int) -> list[str]:
    """What was cut, in words; ``number`` names the prompt."""
    lines = []
    if window.dropped:
        lines.append(
            f"prompt {number} is too long for the context of {context} tokens: only its last {len(window.ids)} tokens "
            f"are used, {window.dropped} are left out"
        )
    if window.new < max_new_tokens:
        lines.append(
            f"prompt {number}: at most {window.new} tokens are generated instead of {max_new_tokens}, because the "
            f"context has {context} tokens"
        )
    return lines
