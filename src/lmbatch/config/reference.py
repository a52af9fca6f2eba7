"""The reference page of every key, written from the schema so that it cannot be out of date."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lmbatch.config.fingerprint import _is_operational
from lmbatch.config.preprocess import PreprocessConfig
from lmbatch.config.serve import ServeConfig
from lmbatch.config.site import SiteConfig
from lmbatch.config.tokenizer import TokenizerConfig
from lmbatch.config.train import TrainConfig

ROOTS: dict[str, type[BaseModel]] = {
    "preprocess": PreprocessConfig,
    "tokenizer": TokenizerConfig,
    "train": TrainConfig,
    "site": SiteConfig,
    "serve": ServeConfig,
}


def reference_markdown() -> str:
    """The whole page as Markdown: one table per kind of config."""
    parts = [
        "# Config reference",
        "",
        "Written by `lmbatch config reference`; do not edit. Keys marked ○ are operational: they decide where and how",
        "fast the work is done, not what comes out, so they may change between an interruption and a resume.",
    ]
    for name, schema in ROOTS.items():
        parts += ["", f"## {name}", "", (schema.__doc__ or "").strip(), "", "| key | type | default | meaning |"]
        parts.append("|---|---|---|---|")
        parts += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in _rows(schema, "", False)]
    return "\n".join(parts) + "\n"


def _rows(schema: type[BaseModel], prefix: str, inherited: bool) -> Iterator[tuple[str, str, str, str]]:
    for name, field in schema.model_fields.items():
        key = f"{prefix}{name}"
        operational = inherited or _is_operational(field)
        section = _section(field)
        if section is not None:
            yield from _rows(section, f"{key}.", operational)
        else:
            mark = " ○" if operational else ""
            yield f"`{key}`{mark}", _type_name(field.annotation), _default(field), field.description or ""


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The schema of a section, also of one that may be left out (``X | None``)."""
    chosen = [kind for kind in (typing.get_args(field.annotation) or (field.annotation,)) if kind is not type(None)]
    kind = chosen[0] if len(chosen) == 1 else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    return "" if value is PydanticUndefined else f"`{json.dumps(value, ensure_ascii=False)}`"


def _type_name(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(f"`{choice}`" for choice in typing.get_args(annotation))
    if typing.get_origin(annotation) is typing.Annotated:
        return _type_name(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(_type_name(choice) for choice in typing.get_args(annotation))
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("NoneType", "null").replace("None", "null")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
