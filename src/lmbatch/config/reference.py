"""The reference page of every key, written from the schema so that it cannot be out of date."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lmbatch.config.fingerprint import _is_operational
from lmbatch.config.preprocess import PreprocessConfig
from lmbatch.config.site import SiteConfig
from lmbatch.config.tokenizer import TokenizerConfig
from lmbatch.config.train import TrainConfig

ROOTS: dict[str, type[BaseModel]] = {
    "preprocess": PreprocessConfig,
    "tokenizer": TokenizerConfig,
    "train": TrainConfig,
    "site": SiteConfig,
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
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    return "" if value is PydanticUndefined else f"`{json.dumps(value, ensure_ascii=False)}`"


def _type_name(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(f"`{choice}`" for choice in typing.get_args(annotation))
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("NoneType", "null").replace("None", "null")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
