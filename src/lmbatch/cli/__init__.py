"""The console command ``lmbatch``: one module per verb, each imported only when its verb is called.

::

    argv ──▶ Verbs (lazy) ──▶ cli/VERB.py ──▶ launch · preprocess · train · infer · report ──▶ text or --json

Results go to stdout, progress and messages to stderr. Exit codes: 0 done, 2 usage or config, 75 stopped after saving
(requeue me), 1 anything else.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any

import click

from lmbatch import __version__
from lmbatch.errors import EXIT_FAILED, LmbatchError, missing_package

# The verb, the module that holds it, and its one line of help (so that --help need not import the module).
VERBS = {
    "corpus": ("lmbatch.cli.corpus", "Get a corpus that can be had by name; show what a corpus config would read."),
    "tokenizer": ("lmbatch.cli.tokenizer", "Train a tokenizer on a corpus, or look at one."),
    "plan": ("lmbatch.cli.plan", "Say what a job would do, before it is run."),
    "simulate": ("lmbatch.cli.simulate", "Play a large job through before it is run: goodput, losses, load."),
    "preprocess": ("lmbatch.cli.preprocess", "Turn a raw corpus into verified token shards in a store."),
    "task": ("lmbatch.cli.task", "Do named tasks of a stored plan, here and now."),
    "verify": ("lmbatch.cli.verify", "Re-read every byte of a store against its receipts and manifest."),
    "repair": ("lmbatch.cli.repair", "Do again only what fails verification."),
    "data": ("lmbatch.cli.data", "Hand a preprocessed corpus to other tools: Parquet, Megatron-LM, GPT-NeoX."),
    "train": ("lmbatch.cli.train", "Train a model; run it again to resume."),
    "launch": ("lmbatch.cli.launch", "Submit a training job to a cluster."),
    "stop": ("lmbatch.cli.stop", "Let a run save and stop, wherever it runs."),
    "logs": ("lmbatch.cli.logs", "Show what a training job writes."),
    "status": ("lmbatch.cli.status", "Show how far a run or a preprocessing store is, and every attempt at it."),
    "report": ("lmbatch.cli.report", "Show a training run or a preprocessed corpus on one HTML page."),
    "compare": ("lmbatch.cli.compare", "Compare two runs step by step, bit for bit."),
    "checkpoints": ("lmbatch.cli.checkpoints", "List or verify the checkpoints of a run."),
    "export": ("lmbatch.cli.export", "Write a Hugging Face folder from a run's newest valid checkpoint."),
    "generate": ("lmbatch.cli.generate", "Generate text from an exported folder or a run."),
    "fill-mask": ("lmbatch.cli.fill_mask", "Fill the masks of a text with an exported masked model."),
    "serve": ("lmbatch.cli.serve", "Answer requests for text over HTTP, also as OpenAI's API."),
    "chat": ("lmbatch.cli.chat", "Try a model on a page in the browser."),
    "evaluate": ("lmbatch.cli.evaluate", "Perplexity and bits per byte of a model; tasks of lm-eval."),
    "config": ("lmbatch.cli.config", "Show a resolved config, or the reference of every key."),
    "doctor": ("lmbatch.cli.doctor", "Check this machine: packages, cores, disk, a store."),
}


class Verbs(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs in the order of the work."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module and take its ``command``."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(VERBS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.command(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Run any command again to resume it. `lmbatch VERB --help` shows examples. With LMBATCH_DEBUG=1 in the "
    "environment an error shows its traceback.",
)
@click.version_option(__version__, prog_name="lmbatch")
@click.option("-v", "--verbose", is_flag=True, help="Show debug messages.")
def cli(verbose: bool) -> None:
    """Raw corpus to trained language model, losing nothing on the way."""
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    logging.getLogger("submitit").setLevel(logging.WARNING)


def main(argv: list[str] | None = None) -> None:
    """Entry point: run the command and end the process with the exit code that its outcome has."""
    try:
        result: Any = cli.main(args=argv, standalone_mode=False)
        sys.exit(result if isinstance(result, int) else 0)
    except LmbatchError as error:
        fail(error)
    except ModuleNotFoundError as error:
        fail(missing_package(error))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; run the same command again to go on", err=True)
        sys.exit(130)


def fail(error: LmbatchError) -> None:
    """Print an error without a traceback (unless LMBATCH_DEBUG is set) and exit with its code."""
    if os.environ.get("LMBATCH_DEBUG"):
        raise error
    click.echo(f"error: {error}", err=True)
    sys.exit(error.exit_code or EXIT_FAILED)
