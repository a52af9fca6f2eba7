"""`lmbatch serve`: text over HTTP."""

from __future__ import annotations

import logging
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic.fields import FieldInfo

from lmbatch.cli.common import quiet_transformers
from lmbatch.config import ServeConfig
from lmbatch.config.load import build

EPILOG = """\b
Examples:
  lmbatch serve data/export/demo                       # http://127.0.0.1:8000
  lmbatch serve runs/NAME --port 8001 --device cuda --dtype bf16
  LMBATCH_API_KEY=… lmbatch serve data/export/demo --host 0.0.0.0
\b
  curl localhost:8000 -H 'Content-Type: application/json' \\
       -d '{"context": "你好", "maxlength": 50, "samples": 5}'
  curl localhost:8000/v1/completions -H 'Content-Type: application/json' \\
       -H "Authorization: Bearer $LMBATCH_API_KEY" \\
       -d '{"prompt": "你好", "max_tokens": 50, "temperature": 0.8, "stream": true}' --no-buffer
  curl localhost:8000/healthz        # 200 when it is ready; asks for no key
  curl localhost:8000/metrics        # for Prometheus
\b
Port 8000 unless --port says otherwise. SIGTERM or Ctrl-C: new requests are refused, running ones get --grace seconds to
end, and the exit code is 0. The API key is read from LMBATCH_API_KEY or --api-key-file, never from the command line.
"""


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """One option for each key of ServeConfig, in its order."""
    for key, field in reversed(ServeConfig.model_fields.items()):
        command = _option(key, field)(command)
    return command


def _option(key: str, field: FieldInfo) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Checked by the schema; click need only know what the value looks like."""
    kinds = [kind for kind in (typing.get_args(field.annotation) or (field.annotation,)) if kind is not type(None)]
    kind: Any = click.Choice([str(kind) for kind in kinds]) if isinstance(kinds[0], str) else str
    if kinds in ([int], [float]) and key != "max_body":
        kind = kinds[0]
    return click.option(
        f"--{key.replace('_', '-')}", key, type=kind, default=field.default, show_default=field.default is not None,
        help=field.description,
    )  # fmt: skip


@click.command(epilog=EPILOG)
@click.argument("checkpoint", metavar="CKPT", type=click.Path(exists=True, file_okay=False, path_type=Path))
@config_options
@click.option(
    "--api-key-file", type=click.Path(dir_okay=False, path_type=Path), help="File with the key that clients must send."
)
def command(checkpoint: Path, api_key_file: Path | None, **settings: object) -> None:
    """Serve the model in CKPT: an exported folder, a run, or a checkpoint of one."""
    config = build(ServeConfig, settings, "serve")
    from lmbatch.infer import load_for_generation
    from lmbatch.infer.http import read_api_key, serve

    key = read_api_key(api_key_file)
    quiet_transformers()
    logging.getLogger(__name__).info("loading %s", checkpoint)
    generator = load_for_generation(checkpoint, device=config.device, dtype=config.dtype)
    serve(generator, config, name=checkpoint.resolve().name, api_key=key)
