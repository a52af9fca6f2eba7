"""The identity of a config: what decides the bytes of the result, and nothing else."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def _is_operational(field: FieldInfo) -> bool:
    return _is_marked(field, "operational")


def _is_marked(field: FieldInfo, mark: str) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get(mark))


@functools.cache
def _counting_fields(schema: type[BaseModel]) -> tuple[tuple[str, bool], ...]:
    """The fields that are not operational, and of each whether it came later and is left out while it is not used."""
    return tuple(
        (name, _is_marked(field, "absent_when_empty"))
        for name, field in schema.model_fields.items()
        if not _is_operational(field)
    )


def identity(config: BaseModel) -> dict[str, Any]:
    """The config as plain values, without its operational fields."""
    result: dict[str, Any] = {}
    for name, may_be_absent in _counting_fields(type(config)):
        value = getattr(config, name)
        if may_be_absent and value in (None, {}, ()):  # False and 0 are values, not absence
            continue
        result[name] = _plain(value)
    return result


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, BaseModel):
        return identity(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def canonical_json(value: Any) -> bytes:
    """One spelling for one value: sorted keys, no white space, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def fingerprint(value: BaseModel | Any) -> str:
    """``sha256:<hex>`` of the canonical JSON of a config's identity (or of any plain value)."""
    plain = identity(value) if isinstance(value, BaseModel) else value
    return "sha256:" + hashlib.sha256(canonical_json(plain)).hexdigest()


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Lines ``a.b: 1 → 2`` for every leaf in which two plain values differ, in order of the keys."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines: list[str] = []
        for key in sorted(old.keys() | new.keys()):
            path = f"{prefix}.{key}" if prefix else str(key)
            lines += differences(old.get(key), new.get(key), path)
        return lines
    return [] if old == new else [f"{prefix}: {_show(old)} → {_show(new)}"]


def _show(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
