"""What every section of a config has in common: strictness, human sizes, the operational mark."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
          "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}  # fmt: skip
_SIZE = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*$")


UNSHOWN = "unshown"  # type of a pydantic error whose input may hold a secret: a message does not repeat it


class Section(BaseModel):
    """A frozen mapping that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())


def parse_bytes(value: Any) -> Any:
    """``"256MiB"`` → 268435456. Numbers pass through; anything else is left for pydantic to refuse."""
    if not isinstance(value, str):
        return value
    match = _SIZE.match(value)
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError(f"{value!r} is not a size; write a number of bytes or for example 256MiB or 2GB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]


def operational(default: Any = ..., **kwargs: Any) -> Any:
    """A field that decides where and how fast work is done, but not one byte of the result.

    The fingerprint leaves these out, so that they may change between an interruption and a resume.
    """
    return Field(default, json_schema_extra={"operational": True}, **kwargs)


def added(default: Any = None, **kwargs: Any) -> Any:
    """A field that came to its section later. ``default`` is None or empty, and then the identity leaves it out.

    So a new key changes no fingerprint or digest of what was stored before it existed.
    """
    return Field(default, json_schema_extra={"absent_when_empty": True}, **kwargs)
