"""From YAML files and ``--set`` to a checked config."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lmbatch.config.base import UNSHOWN
from lmbatch.errors import ConfigError

ConfigT = TypeVar("ConfigT", bound=BaseModel)
_MAX_PARENTS = 8


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: ``1e-4`` is a number, and a key may stand only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                problem = f"the key {key!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


# YAML 1.1 wants a dot in a float; 1.2 and everybody else do not.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str) -> Any:
    """YAML text to plain values. Raises ConfigError naming the line."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{place}: {problem}", remedy="correct the YAML") from error


def dump_yaml(config: BaseModel) -> str:
    """The resolved config, as YAML that loads back to the same values."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def read_layers(path: Path) -> dict[str, Any]:
    """The mapping in ``path`` laid over its parent (key ``extends``, relative to the file)."""
    layers: list[dict[str, Any]] = []
    seen: list[Path] = []
    current: Path | None = path
    while current is not None:
        resolved = current.resolve()
        if resolved in seen or len(seen) >= _MAX_PARENTS:
            raise ConfigError(f"{path}: the chain of `extends` comes back to {current}", remedy="break the circle")
        seen.append(resolved)
        mapping = _read_mapping(current)
        parent = mapping.pop("extends", None)
        if parent is not None and not isinstance(parent, str):
            raise ConfigError(f"{current}: `extends` names one file, not {parent!r}")
        layers.append(mapping)
        current = current.parent / parent if parent else None
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = merge(merged, layer)
    return merged


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "check the path"
        raise ConfigError(f"{path}: no such config file", remedy=hint) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    value = parse_yaml(text, str(path))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: holds a {type(value).__name__}, not a mapping of keys")
    return value


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``: mappings merge key by key, everything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def apply_sets(mapping: dict[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """``--set a.b=v``: the value is read as YAML. Raises ConfigError for anything else."""
    for item in sets:
        key, equals, text = item.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise ConfigError(f"--set {item!r} is not of the form a.b=value")
        layer: Any = parse_yaml(text, f"--set {key}")
        for part in reversed(parts):
            layer = {part: layer}
        mapping = merge(mapping, layer)
    return mapping


def load_config(schema: type[ConfigT], path: str | Path, sets: Sequence[str] = ()) -> ConfigT:
    """Read, merge and check a config. Raises ConfigError that names the file, the key and the nearest known key."""
    mapping = apply_sets(read_layers(Path(path)), sets)
    return build(schema, mapping, str(path))


def build(schema: type[ConfigT], mapping: dict[str, Any], where: str) -> ConfigT:
    """Check a plain mapping against a schema; ``where`` names it in errors."""
    try:
        return schema.model_validate(mapping)
    except ValidationError as error:
        lines = [_explain(schema, detail) for detail in error.errors(include_url=False)]
        raise ConfigError(f"{where}: " + "; ".join(lines), remedy="see `lmbatch config reference`") from None


def _explain(schema: type[BaseModel], detail: ErrorDetails) -> str:
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location) or "(top)"
    if detail["type"] == "extra_forbidden":
        known = _keys_at(schema, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.4)
        hint = f", did you mean `{near[0]}`?" if near else f"; known here: {', '.join(known)}"
        return f"unknown key `{key}`{hint}"
    if detail["type"] == "missing":
        return f"`{key}` is missing"
    message = detail["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(detail["input"], dict) or detail["type"] == UNSHOWN else f" (got {detail['input']!r})"
    return f"`{key}`: {message}{shown}"


def _keys_at(schema: type[BaseModel], location: list[str]) -> list[str]:
    current: Any = schema
    for part in location:
        field = current.model_fields.get(part)
        annotation = field.annotation if field is not None else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        current = annotation
    return list(current.model_fields)
