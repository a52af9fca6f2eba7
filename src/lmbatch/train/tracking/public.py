"""The part of a config that may be shown to a service. Pure."""

from __future__ import annotations

import re
from typing import Any

from lmbatch.config import TrainConfig

_SECRET_KEY = re.compile(r"^key$|^token$|(api|access|auth)_?(key|token)|secret|password|credential", re.IGNORECASE)
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY_OF_URL = re.compile(r"(\w+://[^?\s]+)\?\S*")
_HIDDEN = "hidden"


def public_config(config: TrainConfig) -> dict[str, Any]:
    """The config as JSON holds it, without what looks like a secret: user and query of a URL, values of such keys.

    lmbatch takes secrets from the environment only; but `model.config` is free, and a URL may hold anything.
    """
    cleaned = _clean(config.model_dump(mode="json"))
    assert isinstance(cleaned, dict)
    return cleaned


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _HIDDEN if _hides(key, item) else _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, str):
        return _QUERY_OF_URL.sub(r"\1", _USER_IN_URL.sub("", value))
    return value


def _hides(key: str, value: Any) -> bool:
    return isinstance(value, str) and bool(_SECRET_KEY.search(key))
