"""``python -m lmbatch.train``: the training process, alone or under `accelerate launch`."""

from __future__ import annotations

import time

from lmbatch.train.stop import StopFlag, leave

# Before every other import: a signal that comes while they are going on is a stop request too.
_STARTED = time.monotonic()
_STOP = StopFlag()
if __name__ == "__main__":
    _STOP.install()

import argparse  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Sequence  # noqa: E402

from lmbatch.config import TrainConfig, load_config  # noqa: E402
from lmbatch.errors import EXIT_FAILED, EXIT_USAGE, LmbatchError, missing_package  # noqa: E402
from lmbatch.train import TrainResult, train  # noqa: E402
from lmbatch.train.parent import follow_launcher  # noqa: E402
from lmbatch.train.progress import terminal  # noqa: E402
from lmbatch.train.slurm import rank_environment  # noqa: E402

log = logging.getLogger("lmbatch.train")

_EXAMPLES = """\
examples:
  python -m lmbatch.train --config configs/train/demo.yaml
  python -m lmbatch.train --config configs/train/demo.yaml --set optimizer.lr=1e-4 --set run.name=trial
  accelerate launch --config_file configs/accelerate/single_3090.yaml -m lmbatch.train --config FILE

Running the same command again resumes the run. SIGTERM, SIGINT, SIGUSR2, or a file named `stop` in the run folder:
finish the step, save, and exit with code 75.

exit codes:  0 done   2 usage or config   75 stopped after saving: run it again   1 anything else

environment:
  LMBATCH_DEBUG=1   show the traceback of an error
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lmbatch.train",
        description="Train a language model from a preprocessed corpus; resumes by itself.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="training config (YAML)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=V", dest="sets", help="override one setting; repeatable"
    )
    return parser


def _set_up_logging() -> None:
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    if sys.stderr.isatty():
        from rich.logging import RichHandler

        handler = RichHandler(console=terminal(), show_path=False, highlighter=None)
        handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _report(result: TrainResult) -> None:
    if result.stopped is None:
        log.info("done: %d steps in %s", result.step, result.run_dir)
    else:
        log.info(
            "stopped by %s at step %d of %d; run the same command again to go on",
            result.stopped, result.step, result.total_steps,
        )  # fmt: skip


def _explain(error: Exception) -> int:
    """Write one message and its remedy to standard error; the exit code."""
    if os.environ.get("LMBATCH_DEBUG") == "1":
        traceback.print_exception(error)
    if isinstance(error, ModuleNotFoundError):
        error = missing_package(error)
    if isinstance(error, LmbatchError):
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stderr.write(f"error: {type(error).__name__}: {error}\n  remedy: set LMBATCH_DEBUG=1 to see where\n")
    return EXIT_FAILED


def main(arguments: Sequence[str] | None = None, stop: StopFlag | None = None) -> int:
    """Parse, train, and give the exit code."""
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as end:
        return EXIT_USAGE if end.code else 0
    stop = stop or StopFlag()
    try:
        os.environ.update(rank_environment(os.environ))
        _set_up_logging()
        follow_launcher(stop)
        config = load_config(TrainConfig, options.config, options.sets)
        result = train(config, stop, started=_STARTED)
    except Exception as error:
        return _explain(error)
    _report(result)
    return result.exit_code


if __name__ == "__main__":
    leave(main(stop=_STOP))
