"""`lmbatch chat`: a page for trying a model in a browser."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Examples:
  lmbatch chat data/export/gpt2_zh
  lmbatch chat runs/gpt2_zh                # its newest valid checkpoint, also while it trains
  lmbatch chat data/export/gpt2_zh --port 6006 --new-tokens 400
  LMBATCH_CHAT_USER=team LMBATCH_CHAT_PASSWORD=… lmbatch chat data/export/gpt2_zh --host 0.0.0.0 --port 6006

\b
From another machine, without opening the port to the network:
  ssh -L 7860:127.0.0.1:7860 HOST

The page makes no connection to any other host. It is no API: `lmbatch serve` is one. SIGTERM and Ctrl+C let texts
under way end, and exit with code 0.
"""


@click.command(epilog=EPILOG)
@click.argument("folder", metavar="CKPT", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0: every one.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0: any free one.")
@click.option("--new-tokens", type=click.IntRange(1), default=1000, show_default=True,
              help="Tokens that may be asked for at once.")  # fmt: skip
@click.option("--prompt-characters", type=click.IntRange(1), default=10_000, show_default=True,
              help="Longer prompts are refused.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(1), default=300.0, show_default=True,
              help="A request that takes longer is given up.")  # fmt: skip
@click.option("--rows", type=click.IntRange(1), default=16, show_default=True, help="Texts that grow side by side.")
@click.option("--waiting", type=click.IntRange(1), default=64, show_default=True,
              help="Requests that may wait; more are told to come back.")  # fmt: skip
@click.option("--grace-seconds", type=click.FloatRange(0), default=5.0, show_default=True,
              help="What a stop leaves to texts under way.")  # fmt: skip
def command(folder: Path, **settings: object) -> None:
    """Open a page on which the model in CKPT continues texts.

    CKPT is a folder that `lmbatch export` wrote, or the folder of a run or of one of its checkpoints. User and
    password come from LMBATCH_CHAT_USER and LMBATCH_CHAT_PASSWORD; without them everyone who reaches the port may use
    the model.
    """
    from lmbatch.chat.options import ChatOptions, login_from
    from lmbatch.cli.common import quiet_transformers

    options = ChatOptions(**settings, login=login_from())  # type: ignore[arg-type]
    from lmbatch.chat.server import run_chat

    quiet_transformers()
    run_chat(folder, options, lambda address: click.echo(f"{address}  (Ctrl+C ends it)"))
