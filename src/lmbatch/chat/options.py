"""What whoever starts the page decides."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from lmbatch.errors import UsageError

USER, PASSWORD = "LMBATCH_CHAT_USER", "LMBATCH_CHAT_PASSWORD"
_LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """Address and limits. ``login`` is a user and a password; None lets everyone in who reaches the port.

    ``prompt_characters`` and ``new_tokens`` bound one request, ``seconds`` its time, ``rows`` the texts that grow side
    by side, ``waiting`` the requests that may wait, ``grace_seconds`` what a stop leaves to those under way.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    prompt_characters: int = 10_000
    new_tokens: int = 1000
    seconds: float = 300.0
    rows: int = 16
    waiting: int = 64
    grace_seconds: float = 5.0
    login: tuple[str, str] | None = None

    @property
    def is_open(self) -> bool:
        """May anyone on the network use it without a password?"""
        return self.login is None and self.host not in _LOCAL


def login_from(environ: Mapping[str, str] = os.environ) -> tuple[str, str] | None:
    """User and password from the environment, never from a command line that others can see.

    Raises UsageError if only one of them is set.
    """
    user, password = environ.get(USER, ""), environ.get(PASSWORD, "")
    if bool(user) != bool(password):
        missing = PASSWORD if user else USER
        raise UsageError(f"{missing} is not set, but its other half is", remedy=f"set both {USER} and {PASSWORD}")
    return (user, password) if user else None
